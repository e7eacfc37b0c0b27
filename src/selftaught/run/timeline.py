"""The timeline of a recording: what its moments are like, by a trained encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught import evaluation
from selftaught.data import Source, as_uint8
from selftaught.data.source import digest
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.report import images as pictures
from selftaught.run.features import embed

__all__ = ["Moments", "timeline"]

_LOOKED, _MOST, _LEAST = 200, 120, 8
_WIDTH, _STILL = 960, 54
"""Of the strip of frames in pixels, and of a frame's height."""


class Moments(Source):
    """Stretches of one clip of a source as samples of their own."""

    modality = "clip"

    def __init__(self, source: Source, i: int, starts: np.ndarray, length: int) -> None:
        """Args: the source; which clip; (n,) where the stretches begin, in frames; frames of a stretch."""
        self.source, self.i, self.starts, self.length = source, i, starts, length
        self.name, self.channels, self.depth, self.rate = source.name, source.channels, source.depth, source.rate
        self.names = [f"{source.names[i]}@{start}" for start in starts.tolist()]

    def frames(self, i: int) -> int:
        """Of a stretch."""
        return self.length

    def read(self, i: int, min_side: int | None = None, frames: np.ndarray | None = None) -> np.ndarray:
        """Frames of a stretch."""
        wanted = np.arange(self.length) if frames is None else np.asarray(frames)
        clips: Any = self.source
        found: np.ndarray = clips.read(self.i, min_side, frames=self.starts[i] + wanted)
        return found

    @property
    def value_range(self) -> Any:
        """The clips'."""
        return self.source.value_range

    def fingerprint(self) -> str:
        """Of the source and the stretches."""
        return digest("moments", self.source.fingerprint(), self.i, self.starts, self.length)


def timeline(source: Source, method: Method) -> dict[str, Any] | None:
    """The section of the report: the longest recording of a source, its moments grouped by their embeddings.

    A moment is what the method sees at once; they follow one another without overlap, at most 120 of them spread
    evenly. Windows that belong to one recording are its moments.

    Returns:
        See :class:`selftaught.report.schema.Timeline`; None where no recording has eight moments that can be read.
    """
    found = _windows(source) or _longest(source, method)
    if found is None:
        return None
    clips, starts, ends, name, timed = found
    try:
        features, _, index = embed(method, clips, workers=0)
    except UserError:  # none of them can be read
        return None
    if len(index) < _LEAST:
        return None
    groups = evaluation.moments(features)
    first = _middle(clips, int(index[0]), method)
    filmed = min(max(round(_WIDTH * first.shape[0] / first.shape[1] / _STILL), 4), 20)
    stills = [_middle(clips, int(i), method) for i in _spread(index, filmed)]
    return {
        "name": name,
        "start": starts[index].tolist(),
        "end": ends[index].tolist(),
        "group": groups.tolist(),
        "timed": timed,
        "film": pictures.film(np.stack(stills), side=_STILL),
        "frames": len(stills),
        "typical": [_typical(clips, features, index, groups == g, method) for g in range(int(groups.max()) + 1)],
    }


def _spread(index: np.ndarray, count: int) -> np.ndarray:
    """At most so many of them, from the middles of equal parts."""
    count = min(count, len(index))
    return index[((np.arange(count) + 0.5) * len(index) / count).astype(int)]


def _middle(clips: Source, i: int, method: Method) -> np.ndarray:
    reader: Any = clips
    return as_uint8(reader.read(i, frames=np.array([clips.frames(i) // 2]))[0], method.value_range)


def _typical(clips: Source, x: np.ndarray, index: np.ndarray, own: np.ndarray, method: Method) -> str:
    """The moment of a group that lies nearest to its middle, as a picture."""
    near = np.linalg.norm(x[own] - x[own].mean(0), axis=1).argmin()
    return pictures.encode(_middle(clips, int(index[own][near]), method), size=2 * _STILL, quality=80)


_Found = tuple[Source, np.ndarray, np.ndarray, str, bool]


def _windows(source: Source) -> _Found | None:
    """The windows of the recording that has most of them, in the order of time; None where samples are no windows."""
    if source.groups is None:
        return None
    numbers, counts = np.unique(source.groups, return_counts=True)
    rows = np.flatnonzero(source.groups == numbers[counts.argmax()])
    known = {int(i): span for i in rows if (span := _seconds(source, int(i))) is not None}
    if len(known) < _LEAST:
        return None
    rows, spans = np.array(list(known)), np.array(list(known.values()))
    order = _spread(np.argsort(spans[:, 0], kind="stable"), _MOST)
    name = str(source.names[int(rows[0])]).rpartition("@")[0] or str(source.names[int(rows[0])])
    return source.subset(rows[order]), *spans[order].T, name, True


def _seconds(source: Source, i: int) -> tuple[float, float] | None:
    try:
        return source.seconds(i)
    except SampleError:
        return None


def _longest(source: Source, method: Method) -> _Found | None:
    """Stretches of the longest of the first clips."""
    lengths = np.zeros(min(len(source), _LOOKED), np.int64)
    for i in range(len(lengths)):
        try:
            lengths[i] = source.frames(i)
        except SampleError:
            continue
    i = int(lengths.argmax())
    stretch = int(getattr(method.config, "frames", 16)) * int(getattr(method.config, "stride", 1))
    count = min(int(lengths[i]) // stretch, _MOST)
    if count < _LEAST:
        return None
    starts = np.linspace(0, lengths[i] - stretch, count).round().astype(np.int64)
    times = source.times(i)
    clock = np.arange(lengths[i], dtype=np.float64) if times is None else times
    ends = clock[np.minimum(starts + stretch, lengths[i] - 1)]
    return Moments(source, i, starts, stretch), clock[starts], ends, str(source.names[i]), times is not None
