"""Samples whose fields come from several sources."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._paths import bare
from selftaught.data.fields import LABEL, Field, wanted_fields
from selftaught.data.kinds import kind_of
from selftaught.data.scaling import ValueRange
from selftaught.data.source import PER_SAMPLE, Source, digest
from selftaught.errors import SampleError, UserError

__all__ = ["JOINS", "MISSING", "Pairs", "by_field"]

JOINS = ("stem", "name")
MISSING = ("refuse", "drop")
_SHOWN = 5


class Pairs(Source):
    """Samples whose fields come from several sources, joined by name: blurry + sharp, image + mask, image + text."""

    def __init__(
        self,
        parts: Mapping[str, Source],
        by: str | Callable[[str], str] = "stem",
        *,
        missing: str = "refuse",
        name: str | None = None,
    ) -> None:
        """Join sources.

        Args:
            parts: name of the field -> source of it; the first is the main field and gives order and names. Labels,
                groups and the given split are those of the first part that has some; other fields that a part brings
                keep their name.
            by: what partners share: "stem" is the relative name without its suffix ("cats/1"), "name" the whole
                relative name; or a function of the name.
            missing: "refuse" samples without a partner in every part, or "drop" them; `dropped` counts these.
            name: what to call the source; None: the parts' names.

        Raises:
            UserError: two samples of a part share a key, partners are missing (the first few are listed), or two parts
                bring a field of the same name.
        """
        if not parts or missing not in MISSING or (isinstance(by, str) and by not in JOINS):
            raise UserError(
                f"pairs of {len(parts)} sources, join={by!r}, missing={missing!r}: give one source or more, "
                f"join one of {', '.join(JOINS)}, missing one of {', '.join(MISSING)}"
            )
        self.parts = dict(parts)
        self.name = name or " + ".join(part.name for part in parts.values())
        key: Callable[[str], str] = by if callable(by) else {"stem": _stem, "name": _whole}[by]
        places = {field: _unique_keys(part, key) for field, part in self.parts.items()}
        shared = [k for k in next(iter(places.values())) if all(k in place for place in places.values())]
        self.dropped = len(set().union(*places.values())) - len(shared)
        if self.dropped and (missing == "refuse" or not shared):
            raise UserError(_no_partner(self.name, self.parts, places))
        self._rows = {field: np.array([place[k] for k in shared], np.int64) for field, place in places.items()}
        self._where = _field_places(self.name, self.parts)
        self._take_over()

    def _take_over(self) -> None:
        self._main, part = next(iter(self.parts.items()))
        self.names = [part.names[i] for i in self._rows[self._main].tolist()]
        self.modality, self.channels, self.rate = part.modality, part.channels, part.rate
        self.bands = part.bands
        self.depth, self.generated = part.depth, any(p.generated for p in self.parts.values())
        self.structures = next((p.structures for p in self.parts.values() if p.structures), None)
        self.notes = [note for p in self.parts.values() for note in p.notes]
        for attribute in PER_SAMPLE:
            owner = next((f for f, p in self.parts.items() if getattr(p, attribute) is not None), None)
            if owner is not None:
                setattr(self, attribute, getattr(self.parts[owner], attribute)[self._rows[owner]])
                self.classes = self.parts[owner].classes if attribute == "labels" else self.classes
        self.values = {v: p.values[v][self._rows[f]] for f, p in self.parts.items() for v in p.values}

    @property
    def fields(self) -> dict[str, Field]:
        """A field for each part, then those that the parts bring besides, then the label."""
        fields = {name: self.parts[part].fields[field] for name, (part, field) in self._where.items()}
        return fields | ({LABEL: Field(LABEL)} if self.labels is not None else {})

    def read(self, i: int, min_side: int | None = None, **which: Any) -> np.ndarray:
        """The main field of one sample; see `Source.read`."""
        return self.parts[self._main].read(int(self._rows[self._main][i]), min_side, **which)

    def read_checked(self, i: int) -> np.ndarray:
        """The main field of one sample, as its file has it, after all other parts have been read too."""
        found = {f: part.read_checked(int(self._rows[f][i])) for f, part in self.parts.items()}
        return found[self._main]

    def sample(self, i: int, want: Any = None, min_side: int | None = None, frames: Any = None) -> dict[str, Any]:
        """The fields of one sample; where several lie on one grid, all are read at full size."""
        names = wanted_fields(self.fields, want, self.name)
        if sum(kind_of(self.fields[n].kind).spatial for n in names) > 1:
            min_side = None
        return {n: self._field(n, i, min_side, frames) for n in names}

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name == LABEL or name in self.values:
            return super()._field(name, i, None, None)
        part, field = self._where[name]
        source = self.parts[part]
        which = frames if kind_of(source.fields[field].kind).framed else None
        return source.sample(int(self._rows[part][i]), [field], min_side, which)[field]

    def frames(self, i: int) -> int:
        """Frames of the clips; all parts that are clips must have as many."""
        parts = {f: p for f, p in self.parts.items() if kind_of(p.modality).framed}
        counts = {field: part.frames(int(self._rows[field][i])) for field, part in parts.items()}
        if len(set(counts.values())) > 1:
            raise SampleError(self.names[i], "clips of " + " and ".join(f"{n} frames ({f})" for f, n in counts.items()))
        return next(iter(counts.values())) if counts else super().frames(i)

    def space(self, i: int) -> Any:
        """Of the main part's volume."""
        return self.parts[self._main].space(int(self._rows[self._main][i]))

    def seconds(self, i: int) -> tuple[float, float] | None:
        """Of the main part's clip, as are :meth:`times`, :meth:`recording` and :meth:`frame_names`."""
        return self.parts[self._main].seconds(int(self._rows[self._main][i]))

    def times(self, i: int) -> np.ndarray | None:
        """Of the main part's clip."""
        return self.parts[self._main].times(int(self._rows[self._main][i]))

    def video_file(self, i: int) -> Path | None:
        """Of the main part's clip."""
        return self.parts[self._main].video_file(int(self._rows[self._main][i]))

    def frame_names(self, i: int) -> list[str] | None:
        """Of the main part's clip; the frames of parts that have as many must share their stems.

        Raises:
            SampleError: they don't, so that unlike frames would be taken for partners.
        """
        found: list[str] | None = None
        for field, part in self.parts.items():
            own = part.frame_names(int(self._rows[field][i])) if kind_of(part.modality).framed else None
            if own is None or (found is not None and len(own) != len(found)):
                continue
            found = found or own
            if odd := [(a, b) for a, b in zip(found, own, strict=False) if _stem(a) != _stem(b)]:
                raise SampleError(self.names[i], f"frames {odd[0][0]} and {odd[0][1]} are no partners; call them alike")
        return found

    def any_depth(self) -> None:
        """Of every part."""
        super().any_depth()
        for part in self.parts.values():
            part.any_depth()

    @property
    def value_range(self) -> ValueRange | None:
        """The main part's."""
        return self.parts[self._main].value_range

    def range_of(self, field: str) -> ValueRange | None:
        """The range of the part that the field comes from."""
        part, name = self._where.get(field, (None, ""))
        return None if part is None else self.parts[part].range_of(name)

    def origin(self) -> str:
        """Those of the parts."""
        return " + ".join(part.origin() for part in self.parts.values())

    def fingerprint(self) -> str:
        """Of the parts and of who is whose partner."""
        parts = [f"{field} {part.fingerprint()}" for field, part in self.parts.items()]
        return digest("pairs", parts, *self._rows.values(), self.labels)

    def describe(self) -> str:
        """One line, the other fields and what was left out at its end."""
        others = {name: f for name, f in self.fields.items() if name not in (self._main, LABEL)}
        more = [f"{name} ({kind_of(field.kind).plural})" for name, field in others.items()]
        left = f"; {self.dropped:,} without a partner left out" if self.dropped else ""
        return super().describe() + (f", each with {', '.join(more)}" if more else "") + left


def by_field(source: Source, pattern: str, *, missing: str = "refuse") -> Pairs:
    """Samples of one source as the fields of each other: the devices of one wearer, the exposures of one scene.

    Args:
        source: its names tell which field a sample is: "subject1/wrist/003", "subject1/ankle/003".
        pattern: a regular expression with a group ``field``: ``/(?P<field>wrist|ankle)/``. What it matches is the
            field; partners share the rest of the name.
        missing: as in `Pairs`.

    Returns:
        `Pairs` with a field for each that occurs, in the order in which they first do.

    Raises:
        UserError: no such group, a name that the pattern doesn't match, a sample without partners.
    """
    expression = re.compile(pattern)
    if "field" not in expression.groupindex:
        raise UserError(f"the pattern {pattern!r} has no group (?P<field>...), to say which field a sample is")
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(source.names):
        match = expression.search(name)
        if match is None:
            raise UserError(f"{source.name}: the pattern {pattern!r} doesn't match the name {name!r}")
        rows.setdefault(match["field"], []).append(i)

    def key(name: str) -> str:
        match = expression.search(name)
        assert match is not None
        return name[: match.start("field")] + "*" + name[match.end("field") :]

    return Pairs({field: source.subset(k) for field, k in rows.items()}, key, missing=missing, name=source.name)


def _stem(name: str) -> str:
    """A relative name without its suffix, accents composed (macOS writes them apart); "scan.nii.gz" has two suffixes,
    the window "run.mp4@16" keeps its start.
    """
    file, at, start = name.rpartition("@")
    if not (at and start.isdecimal()):
        file, at, start = name, "", ""
    return unicodedata.normalize("NFC", f"{bare(file.removesuffix('.gz'))}{at}{start}")


def _whole(name: str) -> str:
    return name


def _unique_keys(part: Source, key: Callable[[str], str]) -> dict[str, int]:
    """Key of each sample -> its position."""
    places: dict[str, int] = {}
    for i, name in enumerate(part.names):
        if places.setdefault(key(name), i) != i:
            twin = part.names[places[key(name)]]
            raise UserError(f"{part.name}: {twin} and {name} both go by {key(name)!r}; rename one, or use join=name")
    return places


def _no_partner(name: str, parts: Mapping[str, Source], places: Mapping[str, dict[str, int]]) -> str:
    """The error that lists who lacks a partner, and where."""
    every = list(dict.fromkeys(k for place in places.values() for k in place))
    if not any(all(k in place for place in places.values()) for k in every):
        examples = ", ".join(f"{parts[f].name} has {next(iter(place))!r}" for f, place in places.items() if place)
        return f"{name}: no two samples share a name ({examples}); call partners alike"
    gaps = [
        f"not in {parts[f].name}: {_some(k for k in every if k not in place)}"
        for f, place in places.items()
        if any(k not in place for k in every)
    ]
    return f"{name}: samples without a partner ({'; '.join(gaps)}); add them, or leave them out with missing=drop"


def _some(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def _field_places(name: str, parts: Mapping[str, Source]) -> dict[str, tuple[str, str]]:
    """Field -> the part that it comes from and its name there, the parts' main fields first."""
    places = {part: (part, source.main) for part, source in parts.items()}
    for part, source in parts.items():
        for field in source.fields:
            if field in (source.main, LABEL):
                continue
            if field in places:
                raise UserError(
                    f"{name}: {part} brings a field {field!r}, which {places[field][0]} has too; rename one"
                )
            places[field] = (part, field)
    return places
