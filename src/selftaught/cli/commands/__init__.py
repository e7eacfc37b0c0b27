"""The commands, a file each: what a file gives in ``COMMAND`` is there by name, no list is edited."""

from selftaught.cli._command import commands_of

__all__ = ["COMMANDS"]

COMMANDS = commands_of(__name__, __path__)
"""Name -> command, in the order of the help."""
