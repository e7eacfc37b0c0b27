"""What a line of a table calls a file: one rule for all tables that stand beside files."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from selftaught.errors import UserError

__all__ = ["finder"]


def finder(names: Sequence[str], table: Path) -> Callable[[Any], str | None]:
    """How a cell of a table is read as the name of a file; None where it names none.

    A cell is the relative name of a file, that without its suffix, the bare file name, or that without its suffix: the
    first of these that any file has. A match by the relative name so comes before all others. Where no file has any of
    them, accents may be composed otherwise (as macOS writes them) and a suffix be of capitals.

    Args:
        names: of all files that may be meant, relative to their folder, parted by "/".
        table: that the cells are from, for the error.

    Raises:
        UserError: (the function that is returned) the cell is what two files are called.
    """
    exact = _by_ways(names, str)
    loose: list[dict[str, list[str]]] = []

    def find(cell: Any) -> str | None:
        said = str(cell).strip().replace("\\", "/").removeprefix("./")
        meant = next((known[said] for known in exact if said in known), [])
        if not meant and said:
            if not loose:
                loose.extend(_by_ways(names, _alike))
            said = _alike(said)
            meant = next((known[said] for known in loose if said in known), [])
        if len(meant) > 1:
            first, second = sorted(meant)[:2]
            raise UserError(f"{table}: {said} may be {first} or {second}; write names with their folders and suffixes")
        return meant[0] if meant else None

    return find


def _by_ways(names: Sequence[str], form: Callable[[str], str]) -> list[dict[str, list[str]]]:
    """For each way to call a file: what they are so called, in some form -> their names."""
    ways: tuple[Callable[[PurePosixPath], str], ...] = (
        str, lambda path: str(path.with_suffix("")), lambda path: path.name, lambda path: path.stem
    )  # fmt: skip
    called: list[dict[str, list[str]]] = [{} for _ in ways]
    for name in names:
        for known, way in zip(called, ways, strict=True):
            known.setdefault(form(way(PurePosixPath(name))), []).append(name)
    return called


def _alike(name: str) -> str:
    """One form of names that look the same but for a suffix in capitals."""
    head, dot, suffix = unicodedata.normalize("NFC", name).rpartition(".")
    return head + dot + (suffix.lower() if dot and "/" not in suffix else suffix)
