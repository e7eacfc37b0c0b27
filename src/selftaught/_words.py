"""Numbers of things in words, and texts as fields hold them, the same everywhere."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

SEVERAL = " + "
"""What stands between sources that are laid end to end: ``a/ + b/?n=100``."""


def plural(count: int, noun: str) -> str:
    """``1 sample``, ``2,000 samples``, ``3 classes``, ``4 queries``; of several words the first is the noun where an
    "of" follows it, else the last: ``2 samples of the test part``, ``2 unusable samples``.
    """
    if count == 1:
        return f"1 {noun}"
    head, of, rest = noun.partition(" of ")
    return f"{count:,} {_many(head)}{of}{rest}"


def _many(noun: str) -> str:
    if noun.endswith("series"):
        return noun
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    hissed = noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch")
    return noun + ("es" if hissed else "s")


def lacking(count: int, noun: str, what: str) -> str:
    """``1 sample has no label``, ``2 samples have no label``."""
    return f"{plural(count, noun)} {'has' if count == 1 else 'have'} no {what}"


def one_text(text: Any) -> str:
    """What a field of texts holds: its text, or the first of several."""
    return text if isinstance(text, str) else str(text[0])


def one_line(text: str, most: int = 1000) -> str:
    """A text on one line: ends of lines as they are escaped, the middle left out of one that is longer."""
    line = text.replace("\r", "\\r").replace("\n", "\\n")
    return line if len(line) <= most else f"{line[: most * 2 // 3]} ... {line[-most // 3 :]}"


def typed(word: object) -> str:
    """A path or name as it is typed into a shell: in quotes where it has blanks or ``?`` and ``&``."""
    return shlex.quote(str(word))


def listed(values: Iterable[object]) -> str:
    """Values one after another: "5, 10"."""
    return ", ".join(map(str, values))
