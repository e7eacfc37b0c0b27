"""Series of numbers: arrays, folders of .csv recordings cut into windows, and the .ts files of aeon and sktime."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selftaught.data.arrays import SERIES_KEYS, Pieces, collect
from selftaught.data.files import layout, walk
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
        self._parts = pieces.parts
        self._starts = np.cumsum([0] + [len(p.open()) for p in pieces.parts])
        shape = pieces.parts[0].open().shape
        self._flip = len(shape) == 3 and (axes == "ntc" or (axes is None and time_axis(shape) == 1))
        self.channels = 1 if len(shape) == 2 else shape[2 if self._flip else 1]

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One series (C, T) float32; see `Source.read`."""
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        series = np.atleast_2d(np.array(self._parts[part].open()[i - self._starts[part]], dtype=np.float32))
        return finite(np.ascontiguousarray(series.T if self._flip else series), self.names[i])

    def fingerprint(self) -> str:
        """Of the content in memory, or of the files' sizes and times of change."""
        return digest("series", [p.stamp() for p in self._parts], self.labels, self._flip, len(self))


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
        return digest("ragged", self._flat, self._ends, self.length, self.labels)


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
        return digest("windows", *[digest(r) for r in self._recordings], self.places, self.window, self.labels)


class Tables(Source):
    """Recordings in text tables (rows are instants, columns channels), read when asked for, whole or in windows."""

    modality: Modality = "series"

    def __init__(
        self,
        root: Path,
        files: list[str],
        name: str,
        window: int | None,
        step: int | None,
        columns: list[str] | None,
        rate: float | None,
    ) -> None:
        """Args: folder; files in it; name; samples in a window, None: whole; between starts; columns by name or
        number; Hz.
        """
        self.name, self.root, self.rate, self._files, self._columns = name, root, rate, files, columns
        labels, self.classes, given = layout(files)
        sizes = [_rows(root / file) for file in files]
        self.window = window if window is not None else _one_length(sizes, name)
        if window is None:
            self.places = np.stack([np.arange(len(files)), np.zeros(len(files), dtype=np.int64)], axis=1)
            self.names = files
        else:
            self.places = window_places(sizes, window, window if step is None else step, keep_unreadable=True)
            self.names = [f"{files[r]}@{start}" for r, start in self.places.tolist()]
            self.groups = self.places[:, 0].copy()
        self.labels = None if labels is None else labels[self.places[:, 0]]
        self.given = None if given is None else given[self.places[:, 0]]
        if not len(self.places):
            raise UserError(
                f"{name}: no recording is as long as the window of {window} samples; the longest has {max(sizes)}"
            )
        self.channels = self._first_channels()

    def _first_channels(self) -> int | None:
        for i in range(min(len(self), 50)):
            try:
                return self._table(i).shape[1]
            except SampleError:
                continue
        return None

    def _table(self, i: int) -> np.ndarray:
        file = self._files[self.places[i, 0]]
        path = self.root / file
        try:
            status = path.stat()
        except OSError:
            raise SampleError(self.names[i], "missing") from None
        columns = None if self._columns is None else tuple(self._columns)
        table = _read_table(str(path), columns, status.st_size, status.st_mtime_ns)
        if isinstance(table, str):
            raise SampleError(self.names[i], table)
        return table

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One recording or window (C, T) float32; see `Source.read`."""
        table, start = self._table(i), int(self.places[i, 1])
        if self.channels is not None and table.shape[1] != self.channels:
            raise SampleError(self.names[i], f"{table.shape[1]} channels where the source has {self.channels}")
        series = np.ascontiguousarray(table[start : start + self.window].T)
        if series.shape[1] < self.window:
            raise SampleError(self.names[i], f"{series.shape[1]} instants where {self.window} are wanted")
        return finite(series, self.names[i])

    def fingerprint(self) -> str:
        """Of the files' names, sizes and times of change, and of the windows."""
        stats = [os.stat(self.root / file) for file in self._files]
        sizes = np.array([(s.st_size, s.st_mtime_ns) for s in stats], dtype=np.int64)
        return digest("tables", self._files, sizes, self.places, self.window, self._columns)


def time_axis(shape: tuple[int, ...]) -> int:
    """Which axis of (N, a, b) is time: the longer one; the last where they are equal. Returns 1 or 2."""
    return 1 if shape[1] > shape[2] else 2


def window_places(lengths: list[int], window: int, step: int, keep_unreadable: bool = False) -> np.ndarray:
    """(n, 2) of recording and start: every window that fits, from the start of each recording, `step` apart.

    With `keep_unreadable` a recording of length 0 keeps one window, so that its fault is reported.

    Raises:
        UserError: window or step is not positive.
    """
    if window < 1 or step < 1:
        raise UserError(f"window={window} and step={step} must be at least 1")
    places = [
        (r, start)
        for r, n in enumerate(lengths)
        for start in (range(0, n - window + 1, step) if n or not keep_unreadable else (0,))
    ]
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
        layout: "nct" or "ntc"; None: the longer of the two axes is time, the last where they are equal.
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
            )
    axes: Any = layout
    source = SeriesArrays(pieces, name, axes, rate)
    if groups is not None:
        source.groups = np.unique(np.asarray(groups).reshape(-1), return_inverse=True)[1].astype(np.int64)
    return source


def open_tables(
    path: Path,
    name: str,
    *,
    window: int | None = None,
    step: int | None = None,
    columns: str | None = None,
    rate: float | None = None,
) -> Tables:
    """A folder of recordings as text tables, or one such file.

    Rows are instants and columns channels, parted by comma, semicolon, tab or blanks; one header line is allowed. One
    level of sub-folders is read as classes, ``train/`` beside ``test/`` as a given split. Windows of one recording
    form a group.

    Args:
        path: folder (.csv, .tsv and .txt below it) or file.
        name: what to call the source.
        window: instants in a sample; None: whole recordings, which must then be equally long.
        step: instants between the starts of two windows; None: `window`, so that they don't overlap.
        columns: which ones, by name in the header or by number from 0, parted by commas; None: all.
        rate: sampling rate in Hz.

    Raises:
        UserError: no table there, or no recording as long as the window.
    """
    files = [path.name] if path.is_file() else walk(path, TABLE_SUFFIXES)
    if not files:
        raise UserError(f"{name}: no recording in this folder or below; looked for {' '.join(TABLE_SUFFIXES)}")
    wanted = None if columns is None else [c.strip() for c in columns.split(",")]
    return Tables(path.parent if path.is_file() else path, files, name, window, step, wanted, rate)


def _one_length(sizes: list[int], name: str) -> int:
    lengths = sorted({n for n in sizes if n})
    if len(lengths) > 1:
        raise UserError(
            f"{name}: recordings of {lengths[0]} to {lengths[-1]} instants; say window=N (and step=M) to cut them alike"
        )
    return lengths[0] if lengths else 1


def _rows(path: Path) -> int:
    """Lines of numbers in a table, without parsing them; 0 where it can't be read."""
    try:
        with path.open("rb") as file:
            lines = sum(1 for line in file if line.strip())
        return lines - int(_header(path) is not None)
    except (OSError, UnicodeDecodeError):
        return 0


def _delimiter(line: str) -> str | None:
    return next((d for d in (",", ";", "\t") if d in line), None)


def _header(path: Path) -> list[str] | None:
    """The names of the columns, where the first line is not numbers."""
    with path.open(encoding="utf-8-sig") as file:
        first = next((line for line in file if line.strip()), "")
    fields = [f.strip() for f in first.split(_delimiter(first))]
    try:
        for field in fields:
            float(field or "nan")
    except ValueError:
        return [f.strip('"') for f in fields]
    return None


@functools.lru_cache(maxsize=16)
def _read_table(path: str, columns: tuple[str, ...] | None, size: int, changed: int) -> np.ndarray | str:
    """(T, C) float32, or the reason why there is none; kept for the next windows of the same recording."""
    if size == 0:
        return "empty file"
    try:
        header = _header(Path(path))
        with open(path, encoding="utf-8-sig") as file:
            lines = [line for line in file if line.strip()][int(header is not None) :]
        if not lines:
            return "no rows"
        delimiter = _delimiter(lines[0])
        fields = [line.rstrip("\n").split(delimiter) for line in lines]
        if len({len(f) for f in fields}) > 1:
            odd = next(k for k, f in enumerate(fields) if len(f) != len(fields[0]))
            return f"row {odd + 1} has {len(fields[odd])} columns, the first {len(fields[0])}"
        chosen = _chosen(columns, header, len(fields[0]))
        if isinstance(chosen, str):
            return chosen
        return np.array([[float(f[c].strip() or "nan") for c in chosen] for f in fields], dtype=np.float32)
    except OSError as error:
        return f"can't be opened: {error.strerror}"
    except UnicodeDecodeError:
        return "not a text file"
    except ValueError as error:
        return f"not a number: {' '.join(str(error).split())[-40:]}"


def _chosen(columns: tuple[str, ...] | None, header: list[str] | None, n: int) -> list[int] | str:
    if columns is None:
        return list(range(n))
    found = []
    for column in columns:
        if header is not None and column in header:
            found.append(header.index(column))
        elif column.isdigit() and int(column) < n:
            found.append(int(column))
        else:
            return f"no column {column!r}"
    return found
