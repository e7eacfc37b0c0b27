"""Right calls of public objectives by name, a file per system: ``CALLS``, and ``WITHOUT_TENSORS`` if there are any."""
