"""Small files that are read whole: text, JSON, YAML, lists of names; never a pipe or a device, which has no end."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from selftaught._words import plural

__all__ = ["json_of", "json_text", "kept_json", "name_lines", "names_of", "regular", "text_of", "yaml_text"]

_NAME = re.compile(r'"((?:[^"]|"")*)"[ \t]*(?:[\r\n]|\Z)|([^\r\n]*)(?:[\r\n]|\Z)')
"""A line of a list of names, or several where a name in quotes has more."""

_COUNT = re.compile(r"# ([\d,]+) names?[ \t]*(?:\r?\n|\Z)")


def regular(path: str | Path) -> Path:
    """The path of a file that has an end.

    Raises:
        OSError: there is none; a pipe, a socket or a device.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
    return Path(path)


def text_of(path: str | Path, errors: str = "strict") -> str:
    """The text of a file in UTF-8, whether or not it begins with a mark of that.

    Args:
        path: the file.
        errors: as `bytes.decode` has it; "surrogateescape" for names as they are on disk.

    Raises:
        OSError: it can't be read; a pipe or a device.
        UnicodeDecodeError: a ValueError: other bytes.
    """
    return regular(path).read_text(encoding="utf-8-sig", errors=errors)


def json_of(path: str | Path) -> Any:
    """What a JSON file says.

    Raises:
        OSError: it can't be read; a pipe or a device.
        ValueError: it is no JSON, not UTF-8, or nested too deeply.
    """
    return json_text(text_of(path))


def json_text(text: str) -> Any:
    """What a text of JSON says.

    Raises:
        ValueError: it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def kept_json(path: str | Path) -> dict[str, Any]:
    """What a JSON file says that is made again where it is lost; nothing where there is none, or it is damaged."""
    try:
        found = json_of(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def yaml_text(text: str) -> Any:
    """What a text of YAML says.

    Raises:
        yaml.YAMLError: it is none, or nested too deeply to be read.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # a date that is none, a number of too many digits
        raise yaml.YAMLError(str(error)) from None


# ---- lists of names --------------------------------------------------------------------------------------------------
def name_lines(names: Iterable[str]) -> str:
    """A list of names, one a line; those that a line would change (with a line's end, blanks at their ends) in quotes,
    as in CSV. Its first line says how many there are, so that a list which was cut off is told.
    """
    lines = [_quoted(name) for name in names]
    return "".join(f"{line}\n" for line in (f"# {plural(len(lines), 'name')}", *lines))


def _quoted(name: str) -> str:
    plain = name and name == name.strip() and not name.startswith(('"', "# ")) and "\n" not in name and "\r" not in name
    return name if plain else '"' + name.replace('"', '""') + '"'


def names_of(path: str | Path, known: Iterable[str] = ()) -> list[str]:
    """The names in a file as `name_lines` writes them, or as somebody typed them; empty lines are left out.

    Args:
        path: the file.
        known: names that may be meant. Where the last line has no end and what stands there begins several of them,
            nobody knows whether it was cut off.

    Raises:
        OSError: it can't be read; a pipe or a device.
        ValueError: it is no text, or may have been cut off.
    """
    text = regular(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        raise ValueError("not a text file; write a sample's name a line")
    found: list[str] = []
    head = _COUNT.match(text)
    for match in _NAME.finditer(text, head.end() if head else 0):
        quoted, plain = match.groups()
        name = plain.strip() if quoted is None else quoted.replace('""', '"')
        found += [name] if name or quoted is not None else []
    if head and len(found) != int(head[1].replace(",", "")):
        said = f"it says {head[1]} and holds {len(found):,}"
        raise ValueError(f"{said}; where that is meant, take away its first line")
    if found and not text.endswith(("\n", "\r", '"')):
        other = next((name for name in known if name != found[-1] and name.startswith(found[-1])), None)
        if other is not None:
            raise ValueError(
                f"its last line may be cut off: {found[-1]!r} also begins {other!r}; end it with a new line"
            )
    return found
