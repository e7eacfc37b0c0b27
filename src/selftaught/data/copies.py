"""Folders for copy detection: originals, their copies, and pictures that are neither."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from selftaught._paths import expanded
from selftaught.data.opening import open_source
from selftaught.data.source import Source
from selftaught.errors import UserError

_COPYDAYS = re.compile(r"\d{6}")
_PREFIX = 4


@dataclass(frozen=True)
class Copies:
    """A folder for copy detection.

    Attributes:
        database: the originals.
        queries: one source per kind of change, by its name ("strong", "crops/50").
        distractors: pictures that no query was made from, or None.
        whitening: pictures to learn the whitening on, or None.
        groups: (n,) int64, 0..n-1, one of each original.
        query_groups: kind -> (m,) int64, the original of each query; n where there is none.
    """

    database: Source
    queries: dict[str, Source]
    distractors: Source | None
    whitening: Source | None
    groups: np.ndarray
    query_groups: dict[str, np.ndarray]


def open_copies(folder: str | Path) -> Copies:
    """Open a folder for copy detection, in one of two layouts.

    - ``database/NAME.jpg`` and ``queries/NAME_x.jpg``, sub-folders of ``queries/`` being kinds of change;
    - Copydays as INRIA gives it: ``original/``, and ``strong/``, ``crops/50/``, ``jpegqual/3/`` ... beside it, where
      the first four of six digits name the original.

    Beside them, each optional: ``distractors/`` and ``whitening/``. A query belongs to the original of the same name,
    else to that of its name without the last ``_x``; in Copydays' six digits to that with the same first four.

    Raises:
        UserError: a folder that is missing or has no image, or no query with an original.
    """
    root = expanded(folder)
    if not root.is_dir():
        raise UserError(f"{folder}: no such folder; copy detection wants one with database/ and queries/")
    base = next((root / name for name in ("database", "original") if (root / name).is_dir()), None)
    if base is None:
        raise UserError(f"{folder}: no database/ (or Copydays' original/) in it, to look for the originals")
    database = _images(base)
    aside = {name: root / name for name in ("distractors", "whitening")}
    if base.name == "database":
        if not (root / "queries").is_dir():
            raise UserError(f"{folder}: no queries/ in it, with the copies NAME_x.jpg of database/NAME.jpg")
        places = {"queries": root / "queries"}
    else:
        places = {p.name: p for p in sorted(root.iterdir()) if p.is_dir() and p != base and p.name not in aside}
        places = {name: place for name, place in places.items() if not name.startswith(".")}
        if not places:
            raise UserError(f"{folder}: nothing beside original/; put the copies into strong/, crops/50/ ...")
    queries = {kind: part for name, place in places.items() for kind, part in _kinds(name, _images(place)).items()}
    known = _originals(database)
    groups = {
        kind: np.array([_original(name, known, len(database)) for name in part.names]) for kind, part in queries.items()
    }
    if not any((found < len(database)).any() for found in groups.values()):
        example = next(iter(queries.values())).names[0]
        raise UserError(f"{folder}: no query has an original; {example} should be called after one of {base.name}/")
    others = {name: _images(place) if place.is_dir() else None for name, place in aside.items()}
    return Copies(database, queries, others["distractors"], others["whitening"], np.arange(len(database)), groups)


def _images(place: Path) -> Source:
    source = open_source(str(place), modality="image", split="all")
    source.name = f"{place.name}/"
    return source


def _kinds(name: str, source: Source) -> dict[str, Source]:
    """The queries by the sub-folder that they lie in; those at the top go by the folder's own name."""
    folders = [str(PurePosixPath(n).parent) for n in source.names]
    own = "" if name == "queries" else name
    called = [own if f == "." else f"{own}/{f}" if own else f for f in folders]
    return {kind or name: source.subset(np.flatnonzero([c == kind for c in called])) for kind in sorted(set(called))}


def _originals(database: Source) -> dict[str, int]:
    stems = [PurePosixPath(name).stem for name in database.names]
    found = {stem[:_PREFIX]: i for i, stem in enumerate(stems) if _COPYDAYS.fullmatch(stem)}
    return found | {stem: i for i, stem in enumerate(stems)}


def _original(name: str, known: dict[str, int], none: int) -> int:
    stem = PurePosixPath(name).stem
    whole = stem.rsplit("_", 1)[0]
    tries = [stem, whole]
    tries += [part[:_PREFIX] for part in (stem, whole) if _COPYDAYS.fullmatch(part)]
    return next((known[name] for name in tries if name in known), none)
