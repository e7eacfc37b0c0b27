"""The errors that a user meets, and nothing else: importable from every room, free of heavy imports."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input. The message is one line that names the file or option and the mend; the command line exits with 2."""


class SampleError(Exception):
    """One sample can't be used. It is skipped, counted and listed in ``skipped.csv``; it never ends a run by itself.

    Args:
        name: which sample, as the source names it (usually a relative path).
        reason: why, in a few words ("truncated", "empty file", "3 channels where the source has 4").
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def require(module: str, extra: str) -> object:
    """Import an optional package, or say in one line which extra brings it.

    Args:
        module: dotted name of the package to import.
        extra: name of the extra in ``pip install 'selftaught[extra]'``.

    Raises:
        UserError: the package is not installed.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{module} is not installed; run: pip install 'selftaught[{extra}]'") from error
