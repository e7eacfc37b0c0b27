"""The evaluations of a run: one for each source that it was judged on, each in files of its own."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._paths import expanded, part_of
from selftaught.data import open_source
from selftaught.data.mapped import DAMAGED
from selftaught.errors import UserError, unwritten
from selftaught.evaluation import Result, table
from selftaught.run import locks
from selftaught.run.applying import write_csv
from selftaught.run.layout import Layout, read_json, write_json

_MOST_COLUMNS = 8
NAMES = {
    "this": "this model", "random": "untrained", "raw": "raw input", "statistics": "channel statistics",
    "original": "original model", "retrained": "retrained model",
}  # fmt: skip
"""What a reader is told: whose numbers they are."""


class Found(dict[str, dict[str, Result]]):
    """What an evaluation found: per protocol the Results of ``this``, ``random`` (untrained) and ``raw``.

    Printed, it is a table for every protocol, numbers rounded.
    """

    def __repr__(self) -> str:
        return "\n\n".join(_titled(name, kinds) for name, kinds in self.items())

    __str__ = __repr__


def _titled(name: str, kinds: Mapping[str, Result]) -> str:
    rows = {NAMES.get(kind, kind): result for kind, result in kinds.items()}
    many = max(len(result.numbers) for result in kinds.values()) > _MOST_COLUMNS
    notes = dict.fromkeys(result.note for result in kinds.values() if result.note)
    return "\n".join([name, table(rows, upright=many), *(f"note: {note}" for note in notes)])


class Evaluation:
    """What is kept of a run's evaluation on one source.

    Attributes:
        name: what the source is called; "" for the run's own data.
        data: the source as it was named; None for the run's own, or where it was no name (an array).
    """

    def __init__(self, folder: Path, name: str = "", data: str | None = None) -> None:
        self.folder, self.name, self.data = folder, name, data
        self._numbers, self._about = folder / "evaluation.json", folder / "about.json"
        self._features, self._sections = folder / "features.npz", folder / "sections.json"

    @property
    def own(self) -> bool:
        """Whether it is of the run's own data."""
        return not self.name

    @property
    def exists(self) -> bool:
        """Whether anything was measured."""
        return self._numbers.exists()

    @property
    def written(self) -> float:
        """When, in seconds since 1970; 0 where nothing was measured."""
        return self._numbers.stat().st_mtime if self.exists else 0.0

    @property
    def drawable(self) -> bool:
        """Whether it holds more than numbers: features or pictures."""
        return self.exists and (self._features.exists() or self._sections.exists())

    def numbers(self) -> dict[str, Any]:
        """Per protocol the stored Results (see `Result.to_dict`)."""
        return _read(self._numbers)

    def items(self, protocol: str) -> Path:
        """The table of a protocol that judges each sample independently, the worst first; it may not be there."""
        return self.folder / f"{protocol}.csv"

    def sections(self) -> dict[str, Any]:
        """Ready sections of the report."""
        return _read(self._sections)

    def features(self) -> dict[str, np.ndarray]:
        """Arrays kept to draw from."""
        if not self._features.exists():
            return {}
        try:
            with np.load(self._features) as kept:
                return {name: kept[name] for name in kept.files}
        except DAMAGED as error:
            raise UserError(f"{self._features}: damaged; delete it and evaluate again") from error

    def add(
        self,
        found: Mapping[str, Mapping[str, Result]],
        features: Mapping[str, np.ndarray],
        sections: Mapping[str, Any],
    ) -> None:
        """Keep what was found; protocols that were not run now stay as they are.

        Raises:
            UserError: the disk is full, or can't be written to; another process holds it for a minute.
        """
        try:
            with locks.in_turn(self.folder / ".evaluation.lock", str(self.folder)):  # others may judge it as well
                self._add(found, features, sections)
        except OSError as error:
            raise unwritten(self.folder, error) from error

    def _add(
        self,
        found: Mapping[str, Mapping[str, Result]],
        features: Mapping[str, np.ndarray],
        sections: Mapping[str, Any],
    ) -> None:
        stored = self.numbers() | {n: {k: r.to_dict() for k, r in kinds.items()} for n, kinds in found.items()}
        if not self.own:
            write_json(self._about, {"name": self.name, "data": self.data})
        if features:
            part = part_of(self._features)
            try:
                with part.open("wb") as file:
                    np.savez_compressed(file, **features)  # type: ignore[arg-type]
                part.replace(self._features)
            except OSError as error:
                part.unlink(missing_ok=True)
                raise unwritten(self._features, error) from error
        if sections:
            write_json(self._sections, sections)
        for protocol, kinds in found.items():
            rows = kinds["this"].figures.get("worst_first") if "this" in kinds else None
            if rows:
                write_csv(self.items(protocol), list(rows[0]), [list(row.values()) for row in rows])
        write_json(self._numbers, stored)


def own_evaluation(layout: Layout) -> Evaluation:
    """The evaluation on the run's own data."""
    return Evaluation(layout.path)


def evaluation_on(layout: Layout, own: str, data: Any) -> Evaluation:
    """The evaluation on a source, whether it was made already or not.

    Args:
        layout: of the run.
        own: the run's own data, as its configuration names them.
        data: the source; None is the run's own.
    """
    if data is None or (isinstance(data, str | Path) and _whole(data) == _whole(own)):
        return own_evaluation(layout)
    if isinstance(data, str | Path):
        mark = spec = _whole(data)
        name = (
            f"{Path(spec).name}/" if Path(spec).is_dir() else Path(spec).name if Path(spec).is_file() else _short(data)
        )
    else:
        source = open_source(data, split="all")
        name, mark, spec = source.name, source.fingerprint(), None
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:40] or "data"
    folder = layout.path / "evaluations" / f"{plain}-{hashlib.blake2b(os.fsencode(mark), digest_size=4).hexdigest()}"
    if any(one.name == name and one.folder != folder for one in all_evaluations(layout)):
        name = str(data) if isinstance(data, str | Path) else f"{name} {mark[:6]}"
    return Evaluation(folder, name, spec)


def all_evaluations(layout: Layout) -> list[Evaluation]:
    """All that were made: the one on the run's own data first, then by the time at which they were made."""
    others = []
    for path in (layout.path / "evaluations").glob("*/about.json"):
        about = _read(path)
        others.append(Evaluation(path.parent, str(about.get("name", path.parent.name)), about.get("data")))
    made = [one for one in sorted(others, key=lambda one: (one.written, one.name)) if one.exists]
    own = own_evaluation(layout)
    return [own, *made] if own.exists else made


def leading(layout: Layout) -> Evaluation:
    """The one that a report is about: the latest that holds more than numbers, else that on the run's own data."""
    drawable = [one for one in all_evaluations(layout) if one.drawable]
    return max(drawable, key=lambda one: one.written, default=own_evaluation(layout))


def _short(data: str | Path) -> str:
    """A source with options as a heading calls it: of each path its last part, ``pairs:?volume=scans/&mask=masks/``."""
    spec = str(data)
    return re.sub(r"[^=&?:+\s]*/(?=[^/=&?:+\s])", "", spec) if "?" in spec and "://" not in spec else spec


def _whole(data: str | Path) -> str:
    """A source's name, a path in full, so that two ways of naming one place are one."""
    where, mark, options = str(data).partition("?")
    path = expanded(where)
    return (str(path.resolve()) if path.exists() else where) + mark + options


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return read_json(path, "delete it and evaluate again")
