"""Series of numbers in arrays and in memory, of one length, of several, and cut into windows."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from selftaught.data.arrays import SERIES_KEYS, Pieces, collect
from selftaught.data.pixels import finite
from selftaught.data.source import Modality, Source, digest
from selftaught.errors import SampleError, UserError

Axes = Literal["nct", "ntc"]
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


class SeriesArrays(Source):
    """Series of one length that lie in arrays (N, C, T) or (N, T, C)."""

    modality: Modality = "series"

    def __init__(self, pieces: Pieces, name: str, axes: Axes | None = None, rate: float | None = None) -> None:
        """Args: the arrays; what to call them; their axes, None to tell by `time_axis`; sampling rate in Hz."""
        self.name, self.names, self.rate = name, pieces.names(), rate
        self.labels, self.classes, self.groups, self.given = (
            pieces.labels,
            pieces.classes,
            pieces.groups,
            pieces.given(),
        )
        self.targets = pieces.targets
        self._parts = pieces.parts
        self._starts = np.cumsum([0] + [len(p.open()) for p in pieces.parts])
        shape = pieces.parts[0].open().shape
        self._flip = len(shape) == 3 and (axes == "ntc" or (axes is None and time_axis(shape) == 1))
        self.channels = 1 if len(shape) == 2 else shape[2 if self._flip else 1]
        self.notes = [*pieces.notes, *_axes_note(shape, self._flip, axes)]

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One series (C, T) float32; see `Source.read`."""
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        series = np.atleast_2d(np.array(self._parts[part].open()[i - self._starts[part]], dtype=np.float32))
        return finite(np.ascontiguousarray(series.T if self._flip else series), self.names[i])

    def fingerprint(self) -> str:
        """Of the content in memory, or of the files' sizes and times of change."""
        content = [p.stamp() for p in self._parts]
        return digest("series", content, self.labels, self.classes or [], self.targets, self._flip, len(self))


class RaggedSeries(Source):
    """Series of unequal length in memory, one flat array; each is padded with zeros at its end, or cropped, to one
    length.
    """

    modality: Modality = "series"

    def __init__(self, rows: list[np.ndarray], length: int, name: str, rate: float | None = None) -> None:
        """Args: arrays (C, T_i) of equal C; length of every sample; what to call them; sampling rate in Hz."""
        self.name, self.length, self.rate, self.channels = name, length, rate, rows[0].shape[0]
        self.names = [f"{i:05d}" for i in range(len(rows))]
        self._ends = np.cumsum([0] + [row.shape[1] for row in rows])
        self._flat = np.ascontiguousarray(np.concatenate(rows, axis=1, dtype=np.float32))

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One series (C, length) float32; see `Source.read`."""
        row = self._flat[:, self._ends[i] : self._ends[i + 1]][:, : self.length]
        if not row.shape[1]:
            raise SampleError(self.names[i], "zero length")
        padded = np.zeros((row.shape[0], self.length), dtype=np.float32)
        padded[:, : row.shape[1]] = row
        return finite(padded, self.names[i])

    def fingerprint(self) -> str:
        """Of the content."""
        return digest("ragged", self._flat, self._ends, self.length, self.labels, self.classes or [], self.targets)


class Windows(Source):
    """Windows of one length cut from recordings in memory; sample i is ``recordings[r][:, start : start + window]``."""

    modality: Modality = "series"

    def __init__(self, recordings: list[np.ndarray], window: int, step: int, name: str, stems: list[str]) -> None:
        """Args: arrays (C, T_r); samples in a window; samples between starts; name; a name for each recording."""
        self.name, self.window, self.channels = name, window, recordings[0].shape[0]
        self._recordings = [np.ascontiguousarray(r, dtype=np.float32) for r in recordings]
        self.places = window_places([r.shape[1] for r in recordings], window, step)
        self.names = [f"{stems[r]}@{start}" for r, start in self.places.tolist()]

    @property
    def recording(self) -> np.ndarray:
        """(n,) which recording each window is from."""
        return self.places[:, 0]

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One window (C, window) float32; see `Source.read`."""
        recording, start = self.places[i].tolist()
        return finite(self._recordings[recording][:, start : start + self.window].copy(), self.names[i])

    def fingerprint(self) -> str:
        """Of the recordings and the windows."""
        return digest(
            "windows", *[digest(r) for r in self._recordings], self.places, self.window, self.labels, self.classes or []
        )


def time_axis(shape: tuple[int, ...]) -> int:
    """Which axis of (N, a, b) is time: the last one, unless the other is at least twice as long. Returns 1 or 2."""
    return 1 if shape[1] >= 2 * shape[2] else 2


def _axes_note(shape: tuple[int, ...], turned: bool, axes: Axes | None) -> list[str]:
    """What was taken for time, where the shape alone had to tell and might mean either."""
    if len(shape) < 3 or axes is not None or not (turned or shape[1] > shape[2]):
        return []
    channels, time = (shape[2], shape[1]) if turned else (shape[1], shape[2])
    other = "nct" if turned else "ntc"
    return [f"{shape[1]} x {shape[2]} is taken as {channels} channels of {time} instants; else say layout={other}"]


def window_places(lengths: list[int], window: int, step: int) -> np.ndarray:
    """(n, 2) of recording and start: every window that fits, from the start of each recording, `step` apart.

    Raises:
        UserError: window or step is not positive.
    """
    if window < 1 or step < 1:
        raise UserError(f"window={window} and step={step} must be at least 1")
    places = [(r, start) for r, n in enumerate(lengths) for start in range(0, n - window + 1, step)]
    return np.array(places, dtype=np.int64).reshape(-1, 2)


def open_series_arrays(
    data: Any,
    name: str,
    *,
    layout: str | None = None,
    labels: Any = None,
    groups: Any = None,
    rate: float | None = None,
) -> SeriesArrays:
    """Series of an array, a tensor, a dict of arrays, a .npy or an .npz file.

    Args:
        data: an array (N, T), (N, C, T) or (N, T, C), or a dict or .npz with ``x`` (or ``series``, or ``train_x`` and
            ``test_x``), ``y`` or
            ``labels``, and ``subject`` or ``group``; or the path of such a file.
        name: what to call the source.
        layout: "nct" or "ntc"; None: the last axis is time, unless the other is at least twice as long.
        labels: (N,) for a plain array.
        groups: (N,) for a plain array.
        rate: sampling rate in Hz.

    Raises:
        UserError: no series in it, or labels of another length.
    """
    if layout not in (None, "nct", "ntc"):
        raise UserError(f"{name}: layout={layout!r} is neither nct nor ntc")
    pieces = collect(data, name, "series", SERIES_KEYS, labels)
    for piece in pieces.parts:
        array = piece.open()
        if array.ndim not in (2, 3) or array.dtype.kind not in "uifb":
            raise UserError(
                f"{name}: series must be (N, T), (N, C, T) or (N, T, C) numbers; these are {array.shape} {array.dtype}"
                + ("; windows of several devices (N, D, C, T) are devices:FILE.npz" if array.ndim == 4 else "")
            )
    axes: Any = layout
    source = SeriesArrays(pieces, name, axes, rate)
    if groups is not None:
        source.groups = np.unique(np.asarray(groups).reshape(-1), return_inverse=True)[1].astype(np.int64)
    return source
