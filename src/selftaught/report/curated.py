"""The page about a selection of samples: what was kept, what was dropped and why, with pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from selftaught.report.images import data_uri
from selftaught.report.page import document, save
from selftaught.report.text import number

__all__ = ["ClusterRow", "DuplicateRow", "SelectionPage", "Thumb", "render_selection", "write_selection"]


class Thumb(TypedDict):
    """A sample: its name, and its picture as base64 text ("" where it has none)."""

    name: str
    picture: str


class DuplicateRow(TypedDict):
    """A dropped sample beside the kept one that it repeats."""

    dropped: Thumb
    kept: Thumb
    cosine: float


class ClusterRow(TypedDict):
    """A cluster: samples in it, how many were kept, and some of both."""

    title: str
    size: int
    count: int
    kept: list[Thumb]
    dropped: list[Thumb]


class SelectionPage(TypedDict):
    """What the page shows.

    ``facts`` are (name, value) lines, ``tiles`` (label, value, note) figures; ``reasons`` say how many samples were
    kept or dropped for which reason.
    """

    title: str
    sentence: str
    note: str
    generated: bool
    facts: list[tuple[str, str]]
    tiles: list[tuple[str, str, str]]
    reasons: list[tuple[str, int, float]]
    duplicates: list[DuplicateRow]
    crowded: list[ClusterRow]
    rare: list[ClusterRow]
    command: str


def render_selection(page: SelectionPage) -> str:
    """The page as text."""
    sections: list[tuple[str, str]] = [("reasons", "Why"), ("duplicates", "Near-duplicates")]
    sections += [("crowded", "Crowded clusters"), ("rare", "Rare ones"), ("use", "Use it")]
    shown = [(key, name) for key, name in sections if key == "use" or page[key]]  # type: ignore[literal-required]
    return document("curated.html.j2", page=page, title=page["title"], sections=shown, uri=data_uri, number=number)


def write_selection(path: str | os.PathLike[str], page: SelectionPage) -> Path:
    """Write the page as one self-contained HTML file, whole or not at all."""
    return save(path, render_selection(page))


def shares(counts: Sequence[tuple[str, int]]) -> list[tuple[str, int, float]]:
    """Reasons with their counts and shares of all, the empty ones left out."""
    total: Any = sum(count for _, count in counts) or 1
    return [(reason, count, count / total) for reason, count in counts if count]
