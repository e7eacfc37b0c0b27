"""The errors that a user meets, and nothing else: importable from every room, free of heavy imports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_COMMANDS = re.compile(r"\b(?:selftaught|pip|python|torchrun) [^;,()\n]+")
_OPTION = re.compile(
    r"(?<![\w-])--(?P<no>no-)?(?P<name>[a-z][a-z0-9-]*)"
    r"(?: (?P<value>-?\d[^\s:;,)]*|'[^']*'|[A-Z][A-Z_]+\b|[^\s;,)=]+?(?=:(?:\s|$))))?"
)
_ARGUMENT = {"protocol": "protocols", "own_views": "views"}
"""Options that have another name in Python."""
_commanded = 0


class UserError(ValueError):
    """Bad input. The message is one line that names the file or option and the mend; the command line exits with 2.

    Messages are written as the command line says it (``--batch-size 4``); to whoever called from Python they name the
    argument (``batch_size=4``).
    """

    def __str__(self) -> str:
        return for_caller(super().__str__())


def for_caller(text: str) -> str:
    """A message that names options, in the words of whoever reads it: as it is, or with Python's arguments.

    Whole commands (``selftaught train --resume RUN``) stay what they are.
    """
    if _commanded:
        return text
    done, end = [], 0
    for command in _COMMANDS.finditer(text):
        done += [_OPTION.sub(_as_argument, text[end : command.start()]), command.group()]
        end = command.end()
    return "".join([*done, _OPTION.sub(_as_argument, text[end:])])


def _as_argument(option: re.Match[str]) -> str:
    name, value = option["name"].replace("-", "_"), option["value"]
    name = _ARGUMENT.get(name, name)
    if option["no"]:
        return f"{name}=False" + (f" {value}" if value else "")
    return f"{name}={value}" if value else name


@contextmanager
def command_line() -> Iterator[None]:
    """Messages meanwhile go to somebody who typed a command."""
    global _commanded
    _commanded += 1
    try:
        yield
    finally:
        _commanded -= 1


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
