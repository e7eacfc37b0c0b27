"""Runs that show something: the demonstration, and each paper's claim in the small."""
