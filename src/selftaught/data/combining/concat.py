"""Sources one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.fields import LABEL, Field, wanted_fields
from selftaught.data.kinds import kind_of
from selftaught.data.scaling import ValueRange, robust_range
from selftaught.data.source import TRAIN, UNLABELLED, Source, digest
from selftaught.errors import UserError

__all__ = ["Concat", "UnlikeSources"]


class UnlikeSources(UserError):
    """Sources of several kinds or numbers of channels that were to be laid end to end, such as images and volumes."""


class Concat(Source):
    """The samples of several sources, one source after the other."""

    def __init__(self, parts: Sequence[Source], name: str | None = None) -> None:
        """Lay sources end to end.

        Labels are joined by the NAME of their class: the classes of the first source come first, new ones of the next
        follow. A source without labels beside labelled ones is an unlabelled part: its labels are -1, its samples are
        `UNLABELLED` in the given split. Groups stay apart; a source without any puts each sample in a group of its own
        where another has groups. Where a source brings its own split, the samples of one that doesn't are for
        training. Fields that one of the sources lacks are left out.

        Args:
            parts: at least one source; all of one kind and of as many channels.
            name: what to call the source; None: the parts' names.

        Raises:
            UserError: no source, or sources whose samples don't go together.
        """
        if not parts:
            raise UserError("no source to lay end to end; give at least one")
        self.parts = list(parts)
        first = self.parts[0]
        self.name = name or " + ".join(p.name for p in parts)
        for part in self.parts[1:]:
            _same(first, part)
        self.modality, self.channels, self.rate = first.modality, first.channels, first.rate
        self.depth = first.depth if len({p.depth for p in parts}) == 1 else None
        self.bands = any(p.bands for p in parts)
        self.generated = any(p.generated for p in parts)
        self.devices, self.structures = first.devices, first.structures
        self._starts = np.cumsum([0] + [len(p) for p in parts])
        stems = _distinct([p.name.rstrip("/") for p in parts])
        self.names = [f"{stem}/{n}" for stem, part in zip(stems, parts, strict=True) for n in part.names]
        self.labels, self.classes = _joined_labels(self.parts)
        self.groups, self.group_names = _joined_groups(self.parts)
        self.given = _joined_given(self.parts)
        if any(p.targets is not None for p in parts):
            known = [np.full(len(p), np.nan) if p.targets is None else p.targets for p in parts]
            self.targets = np.concatenate(known)
        spacings = [p.spacing for p in parts if p.spacing is not None]
        self.spacing = np.concatenate(spacings) if len(spacings) == len(parts) else None
        self.notes = [f"{p.name}: {note}" for p in parts for note in p.notes]
        passed: Counter[str] = Counter()
        for part in self.parts:
            passed.update(part.left_out)
        self.left_out = dict(passed)
        shared = set.intersection(*(set(p.values) for p in parts))
        self.values = {v: np.concatenate([p.values[v] for p in parts]) for v in first.values if v in shared}
        self._range: ValueRange | None = None
        self._ranged = False

    @property
    def fields(self) -> dict[str, Field]:
        """Those that every part has."""
        others = [part.fields for part in self.parts[1:]]
        fields = {n: f for n, f in self.parts[0].fields.items() if n != LABEL and all(n in o for o in others)}
        for name, field in fields.items():
            if any(o[name] != field for o in others):
                fields[name] = Field(field.kind)
        return fields | ({LABEL: Field(LABEL)} if self.labels is not None else {})

    def _find(self, i: int) -> tuple[Source, int]:
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.parts[part], int(i - self._starts[part])

    def parts_of(self, indices: np.ndarray) -> list[tuple[Source, np.ndarray, np.ndarray]]:
        """The parts that hold samples ``indices``, in order: each with which of its own samples these are, and where in
        ``indices`` they stand.
        """
        of = np.searchsorted(self._starts, indices, side="right") - 1
        places = [np.flatnonzero(of == p) for p in range(len(self.parts))]
        return [(self.parts[p], indices[at] - self._starts[p], at) for p, at in enumerate(places) if len(at)]

    def read(self, i: int, min_side: int | None = None, **which: Any) -> np.ndarray:
        """One sample of one of the parts; see `Source.read`."""
        part, k = self._find(i)
        return part.read(k, min_side, **which)

    def read_checked(self, i: int) -> np.ndarray:
        """One sample of one of the parts, as its file has it."""
        part, k = self._find(i)
        return part.read_checked(k)

    def sample(self, i: int, want: Any = None, min_side: int | None = None, frames: Any = None) -> dict[str, Any]:
        """The fields of one sample, its label as it counts here; see `Source.sample`."""
        names = wanted_fields(self.fields, want, self.name)
        part, k = self._find(i)
        found = part.sample(k, [n for n in names if n != LABEL], min_side, frames)
        return {n: self._field(n, i, None, None) if n == LABEL else found[n] for n in names}

    def frames(self, i: int) -> int:
        """Of the part's clip."""
        part, k = self._find(i)
        return part.frames(k)

    def seconds(self, i: int) -> tuple[float, float] | None:
        """Of the part's clip."""
        part, k = self._find(i)
        return part.seconds(k)

    def times(self, i: int) -> np.ndarray | None:
        """Of the part's clip."""
        part, k = self._find(i)
        return part.times(k)

    def video_file(self, i: int) -> Path | None:
        """Of the part's clip."""
        part, k = self._find(i)
        return part.video_file(k)

    def frame_names(self, i: int) -> list[str] | None:
        """Of the part's clip."""
        part, k = self._find(i)
        return part.frame_names(k)

    def space(self, i: int) -> Any:
        """Of the part's volume."""
        part, k = self._find(i)
        return part.space(k)

    def any_depth(self) -> None:
        """Of every part."""
        super().any_depth()
        for part in self.parts:
            part.any_depth()

    @property
    def value_range(self) -> ValueRange | None:
        """One for all parts, chosen over samples of all of them; None where all are uint8."""
        if not self._ranged:
            self._range = None if all(p.value_range is None for p in self.parts) else robust_range(self)
            self._ranged = True
        return self._range

    def range_of(self, field: str) -> ValueRange | None:
        """Of the main field see `value_range`; of another the range that holds those of all parts."""
        if field == self.main:
            return self.value_range
        ranges = np.array([r for r in (part.range_of(field) for part in self.parts) if r is not None])
        if not len(ranges):
            return None
        return np.stack([ranges[..., 0].min(axis=0), ranges[..., 1].max(axis=0)], axis=1).tolist()

    def origin(self) -> str:
        """Those of the parts."""
        return " + ".join(part.origin() for part in self.parts)

    def fingerprint(self) -> str:
        """Of the parts and the joined labels."""
        return digest("concat", [part.fingerprint() for part in self.parts], self.labels)


def _same(first: Source, other: Source) -> None:
    """See that the samples of two sources go together.

    Raises:
        UserError: they are of different kinds, channels, rates, devices or structures.
    """
    both = f"{first.name} and {other.name}"
    if (first.main, first.modality) != (other.main, other.modality):
        plurals = [kind_of(s.modality).plural for s in (first, other)]
        raise UnlikeSources(f"{both} don't go together: {first.main} ({plurals[0]}) and {other.main} ({plurals[1]})")
    for one in (first, other):
        one.check_read()
    if first.channels != other.channels:
        raise UnlikeSources(
            f"{both} have {first.channels} and {other.channels} channels; make them alike, files with channels=N"
        )
    if None not in (first.rate, other.rate) and first.rate != other.rate:
        raise UserError(f"{both} have {first.rate:g} and {other.rate:g} samples a second; resample one of them")
    for what in ("devices", "structures"):
        one, two = (getattr(source, what) for source in (first, other))
        if one != two:
            listed = [", ".join(names) if names else "none" for names in (one, two)]
            raise UserError(f"{both} don't go together: their {what} are {listed[0]}, and {listed[1]}")


def _distinct(names: list[str]) -> list[str]:
    """The names, numbered from the second on where one repeats."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return found


def _joined_labels(parts: list[Source]) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels by the name of their class, -1 for a source without any; (None, None) where none has labels."""
    codes: dict[str, int] = {}
    labels = []
    if all(part.labels is None for part in parts):
        return None, None
    for part in parts:
        if part.labels is None:
            labels.append(np.full(len(part), -1, dtype=np.int64))
            continue
        classes = part.classes or [str(k) for k in range(int(part.labels.max(initial=-1)) + 1)]
        recoded = np.array([codes.setdefault(name, len(codes)) for name in classes], dtype=np.int64)
        labels.append(np.where(part.labels < 0, -1, recoded[np.maximum(part.labels, 0)]))
    return np.concatenate(labels), list(codes)


def _joined_given(parts: list[Source]) -> np.ndarray | None:
    """The parts' own splits; None where none has one and all or none are labelled."""
    bare = [part.labels is None for part in parts]
    mixed = any(bare) and not all(bare)
    if not mixed and all(part.given is None for part in parts):
        return None
    codes = []
    for part, without in zip(parts, bare, strict=True):
        own = np.full(len(part), TRAIN, dtype=np.int8) if part.given is None else part.given
        codes.append(np.full(len(part), UNLABELLED, dtype=np.int8) if mixed and without else own)
    return np.concatenate(codes)


def _joined_groups(parts: list[Source]) -> tuple[np.ndarray | None, list[str] | None]:
    """Groups numbered on from source to source, samples of a source without any as groups of one; and their names,
    where all have some.
    """
    if all(part.groups is None for part in parts):
        return None, None
    groups, names, used = [], [], 0
    for part in parts:
        found, own = (np.arange(len(part)),) * 2 if part.groups is None else np.unique(part.groups, return_inverse=True)
        groups.append(own.reshape(-1).astype(np.int64) + used)
        names += [f"{part.name}{part.group_names[k]}" for k in found.tolist()] if part.group_names else []
        used += len(found)
    return np.concatenate(groups), names if len(names) == used else None
