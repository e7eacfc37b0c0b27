"""Many runs with one question: the demonstration, each paper's claim in the small, grids and MedMNIST's protocol."""
