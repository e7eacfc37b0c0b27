"""The command line, a file per command: parses, calls, prints; decides nothing. Nothing heavy is imported early."""

from selftaught.cli._main import main

__all__ = ["main"]
