"""The errors that a user meets, and nothing else: importable from every room, free of heavy imports."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_COMMANDS = re.compile(r"\b(?:selftaught|pip|python|torchrun) [^;,()\n]+")
_GOES_ON = (
    "or|and|all|alone|both|branches|can|can't|chooses|compares|divides|ends|fewer|first|for|goes|has|have|in|instead|is|"
    "judges|larger|needs|of|packs|shows|smaller|spreads|stands|takes|tells|the|throughout|to|told|trains|two|watches|"
    "with"
)
"""Words that go on with a sentence after an option's name; any other word there is a value."""
_OPTION = re.compile(
    r"(?<![\w-])--(?P<no>no-)?(?P<name>[a-z][a-z0-9-]*)"
    r"(?: (?:(?P<value>-?\d[^\s:;,)]*|'[^']*'|[A-Z][A-Z_]+\b)"
    rf"|(?P<word>[^\s;,)=]+?(?=:(?:\s|$))|(?!(?:{_GOES_ON})\b)[a-z][^\s;,)]*?(?<!\.)(?=[:;,)?]*\.?(?:\s|$)))))?"
)
_ARGUMENT = {"protocol": "protocols", "own_views": "views"}
"""Options that have another name in Python."""
_ASSIGNED = re.compile(
    r"(?<![\w?&.=-])(?P<name>[a-z][a-z0-9_]*)=(?P<value>'[^']*'|\"[^\"]*\"|[^\s;)=]+?(?=[:;,)]*\.?(?:\s|$)))"
)
_commanded = 0
_options: set[str] = set()
"""Options that the command at work has."""


class UserError(ValueError):
    """Bad input. The message is one line that names the file or option and the mend; the command line exits with 2.

    Messages are written as the command line says it (``--batch-size 4``); to whoever called from Python they name the
    argument (``batch_size=4``). Those of functions that name arguments name options to whoever typed a command.
    """

    def __str__(self) -> str:
        return for_caller(super().__str__())


class Remark(UserWarning):
    """What is not quite as asked for, though nothing failed: a warning to Python, a plain line of a command."""


class NoWeights(UserError):
    """Pretrained weights that can't be had here.

    Attributes:
        reason: why not, a line.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def for_caller(text: str) -> str:
    """A message that names options, in the words of whoever reads it: those of the command at work, or Python's.

    Whole commands (``selftaught train --resume RUN``) stay what they are.
    """
    if _commanded:
        return _ASSIGNED.sub(_as_option, text)
    done, end = [], 0
    for command in _COMMANDS.finditer(text):
        done += [_OPTION.sub(_as_argument, text[end : command.start()]), command.group()]
        end = command.end()
    return "".join([*done, _OPTION.sub(_as_argument, text[end:])])


def _as_argument(option: re.Match[str]) -> str:
    name = option["name"].replace("-", "_")
    value = f'"{option["word"]}"' if option["word"] else option["value"]
    name = _ARGUMENT.get(name, name)
    if option["no"]:
        return f"{name}=False" + (f" {value}" if value else "")
    return f"{name}={value}" if value else name


def _as_option(argument: re.Match[str]) -> str:
    option, value = f"--{argument['name'].replace('_', '-')}", argument["value"]
    if option not in _options:  # an option of a source, such as split=train
        return argument.group()
    negated = f"--no-{option[2:]}"
    if negated in _options and value in ("True", "False"):
        return option if value == "True" else negated
    return f"{option} {value}"


@contextmanager
def command_line() -> Iterator[None]:
    """Messages meanwhile go to somebody who typed a command."""
    global _commanded
    _commanded += 1
    try:
        yield
    finally:
        _commanded -= 1
        if not _commanded:
            _options.clear()


def has_options(options: Iterable[str]) -> None:
    """Take note of options that the command at work has (``--batch-size``)."""
    _options.update(options)


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


_MENDS = {
    ("ENOSPC", "EDQUOT", "EFBIG"): "make room",
    ("EROFS",): "choose a place that may be written to",
    ("EACCES", "EPERM"): "allow it, or choose another place",
    ("EISDIR",): "a folder of that name is in the way: move it, or choose another name",
    ("ENOTDIR", "EEXIST", "ENOTEMPTY"): "a file is in the way: move it, or choose another place",
    ("ENAMETOOLONG",): "choose a shorter name",
    ("ENOENT",): "make its folder first, or choose another place",
}


def unwritten(path: object, error: OSError, mend: str = "", go_on: str = "") -> UserError:
    """The line of a file that can't be written: why, and what mends it.

    Args:
        path: of the file.
        error: what the system said.
        mend: in place of the usual one for such an error.
        go_on: what to do when it is mended.
    """
    reason = error.strerror or (str(error).splitlines() or ["unknown"])[0][:100]
    return UserError(f"{path}: can't be written ({reason}); {mend or mend_of(error)}{go_on}")


def mend_of(error: OSError) -> str:
    """What mends an error of the system, in a few words."""
    codes = {getattr(errno, name): told for names, told in _MENDS.items() for name in names if hasattr(errno, name)}
    return codes.get(error.errno or 0, "choose another place")


def first_line(error: BaseException, most: int = 120) -> str:
    """What an error of another library says, in short: its first line, or its kind where it says nothing.

    >>> first_line(OSError("no route to host. \\nTraceback")), first_line(MemoryError())
    ('no route to host', 'MemoryError')
    """
    text = str(error).strip()
    return text.splitlines()[0][:most].rstrip(" .:") if text else type(error).__name__
