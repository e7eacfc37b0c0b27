"""The benchmarks that ``selftaught benchmark NAME`` knows, a file each; their files give ``COMMAND`` as commands do."""

from selftaught.cli._command import commands_of

__all__ = ["BENCHMARKS"]

BENCHMARKS = commands_of(__name__, __path__)
"""Name -> command, in the order of the help."""
