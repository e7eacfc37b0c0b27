"""The packed cache of clips: every recording decoded once, all its frames in a memory-mapped file.

A pack is a folder like that of images: ``pixels.bin`` holds the frames of one recording after the other, (T, H, W, C)
uint8 each, ``index.npz`` where each recording begins, its size, and per frame a checksum and whether it could be read.
Of several folders that lie end to end each has a pack of its own.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event, Lock
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from selftaught._reading import json_of
from selftaught.data import _packing as packing
from selftaught.data._packing import PIXELS, Progress, reduce_to
from selftaught.data.combining.concat import Concat
from selftaught.data.formats._clips import Clips
from selftaught.data.scaling import ValueRange, as_uint8
from selftaught.data.source import PER_SAMPLE, Source, Subset, digest, whole_of
from selftaught.errors import SampleError, UserError

__all__ = ["PackedClips", "PackedParts", "pack_clips"]


class PackedClips(Clips):
    """Clips whose frames are read from a pack of their recordings; all else (names, labels, times) is the original
    source's.
    """

    def __init__(self, folder: Path, source: Source) -> None:
        """Args: the folder of a pack that `pack_clips` made; the source that it was made from."""
        self.folder = folder
        self.base, self._rows = _recordings(source)
        self.name, self.names, self.classes, self.notes = source.name, source.names, source.classes, source.notes
        self.generated, self.channels, self.rate = source.generated, source.channels, source.rate
        self.values, self.depth = source.values, "uint8"
        for attribute in PER_SAMPLE:
            setattr(self, attribute, getattr(source, attribute))
        self.cut, self.places = self.base.cut, self.base.places[self._rows]
        self.stems = self.base.stems
        head = json_of(folder / "pack.json")
        samples = json_of(folder / "samples.json")
        self._why: dict[int, list[tuple[int, str]]] = {int(e): runs for e, runs in samples["bad"].items()}
        self._range: ValueRange | None = head["value_range"]
        self._fingerprint, self.max_side, self.nbytes = str(head["fingerprint"]), int(head["max_side"]), head["bytes"]
        with np.load(folder / "index.npz") as index:
            self._lengths, self._starts, self._shapes = index["lengths"], index["starts"], index["shapes"]
            self._sums, self._good = index["sums"], index["good"]
        self._offsets = np.cumsum(self._lengths) - self._lengths
        self._entry = {k: e for e, k in enumerate(np.unique(self.places[:, 0]).tolist())}
        self._mapped: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}

    def _length(self, k: int) -> int:
        e = self._entry[k]
        length = int(self._lengths[e])
        if not length and e in self._why:
            raise SampleError(self.stems[k], self._why[e][0][1])
        return length

    def _decode(self, k: int, positions: np.ndarray, min_side: int | None, name: str) -> np.ndarray:
        e = self._entry[k]
        lost = positions[~self._good[self._offsets[e] + positions]]
        if len(lost):
            raise SampleError(name, next(why for start, why in reversed(self._why[e]) if start <= lost.min()))
        if self._mapped is None:
            try:
                self._mapped = np.memmap(self.folder / PIXELS, np.uint8, "r")
            except (OSError, ValueError):
                raise SampleError(name, "the packed cache is gone or was made anew meanwhile") from None
        found: np.ndarray = np.asarray(self._frames(e))[positions]
        return found

    def _frames(self, e: int) -> np.ndarray:
        """All frames (T, H, W, C) of an entry, mapped."""
        shape = (int(self._lengths[e]), *self._shapes[e].tolist())
        start = int(self._starts[e])
        assert self._mapped is not None
        return self._mapped[start : start + int(np.prod(shape))].reshape(shape)

    def damaged(self, frames: Any) -> list[int]:
        """Those of the frames, counted through all recordings, whose bytes no longer have their checksum."""
        self._mapped = np.memmap(self.folder / PIXELS, np.uint8, "r") if self.nbytes else np.zeros(0, np.uint8)
        ends = self._offsets + self._lengths
        found = []
        for frame in map(int, frames):
            e = int(np.searchsorted(ends, frame, side="right"))
            pixels = self._frames(e)[frame - int(self._offsets[e])]
            if self._good[frame] and zlib.crc32(pixels.data) != self._sums[frame]:
                found.append(frame)
        return found

    def seconds(self, i: int) -> tuple[float, float] | None:
        """Of the original clip."""
        return self.base.seconds(int(self._rows[i]))

    def times(self, i: int) -> np.ndarray | None:
        """Of the original clip."""
        return self.base.times(int(self._rows[i]))

    def video_file(self, i: int) -> Path | None:
        """Of the original clip."""
        return self.base.video_file(int(self._rows[i]))

    def frame_names(self, i: int) -> list[str] | None:
        """Of the original clip."""
        return self.base.frame_names(int(self._rows[i]))

    @property
    def value_range(self) -> ValueRange | None:
        """The range that the original source was scaled by when it was packed; the pack itself is uint8."""
        return self._range

    def origin(self) -> str:
        """The original source's."""
        return self.base.origin()

    def fingerprint(self) -> str:
        """Of the original source and the size that it was packed at."""
        return digest("packed", self._fingerprint, self.max_side)

    def describe(self) -> str:
        """One line, the size of the pack at the end."""
        return f"{super().describe()} (packed, {self.nbytes / 1e6:,.0f} MB, shorter side at most {self.max_side})"


class PackedParts(Subset):
    """Clips of several packs, one for each of the sources that lay end to end; all else is the original source's."""

    max_side: int
    nbytes: int

    def __init__(
        self, source: Source, packs: list[PackedClips | PackedParts], order: np.ndarray, value_range: ValueRange | None
    ) -> None:
        """Args: what was packed; the packs of its parts; which of their clips each sample is; its value range."""
        self.max_side = packs[0].max_side
        self.nbytes = sum(pack.nbytes for pack in packs)
        joined = Concat(packs, source.name)
        joined._range, joined._ranged = value_range, True
        packed = f"packed, {self.nbytes / 1e6:,.0f} MB, shorter side at most {self.max_side}"
        super().__init__(joined, order, packed)
        for attribute in (*PER_SAMPLE, "names", "classes", "group_names", "notes", "left_out", "values", "generated"):
            setattr(self, attribute, getattr(source, attribute))


class _Entry(NamedTuple):
    """What is known of a recording before it is decoded: its frames, their size, and what is wrong with it."""

    length: int
    shape: tuple[int, ...]
    why: str = ""

    @property
    def frame(self) -> int:
        """Bytes of a frame."""
        return int(np.prod(self.shape))


def pack_clips(
    source: Source, max_side: int, folder: str | Path, workers: int, progress: Progress | None = None
) -> PackedClips | PackedParts:
    """Decode the recordings of a source once into a pack, or open the pack that is there; see `pack`.

    Of a recording that is damaged what can be decoded is packed; reading the rest raises the SampleError of the file.
    """
    return _pack(source, max_side, folder, workers, progress, source.value_range)


def _pack(
    source: Source,
    max_side: int,
    folder: str | Path,
    workers: int,
    progress: Progress | None,
    value_range: ValueRange | None,
) -> PackedClips | PackedParts:
    """The pack of a source whose frames are brought to eight bits by a range, which is that of all its parts."""
    whole, rows = whole_of(source)
    if isinstance(whole, Concat):
        parts = whole.parts_of(rows)
        packs = [
            _pack(part.subset(own, f"part {n} of {len(parts)}"), max_side, folder, workers, progress, value_range)
            for n, (part, own, _) in enumerate(parts, start=1)
        ]
        order = np.argsort(np.concatenate([places for _, _, places in parts]))
        return PackedParts(source, packs, order, value_range)
    base, rows = _recordings(source)
    fingerprint = source.fingerprint()
    recordings = np.unique(base.places[rows, 0]).tolist()
    return packing.keep(
        source,
        folder,
        ["clips", fingerprint, max_side, value_range],
        ["clips", source.origin(), max_side, base.rate, *base.cut],
        lambda target: _open_valid(target, source, fingerprint, max_side, len(recordings)),
        lambda target, owner: _build(
            source, recordings, max_side, target, fingerprint, owner, workers, progress, value_range
        ),
    )


def _recordings(source: Source) -> tuple[Clips, np.ndarray]:
    """The source of recordings that a source is a part of, and which of its samples these are."""
    base, rows = whole_of(source)
    if not isinstance(base, Clips):
        raise UserError(f"{source.name}: only clips of videos or of folders of frames are packed; go without the cache")
    return base, rows


def _open_valid(target: Path, source: Source, fingerprint: str, max_side: int, count: int) -> PackedClips | None:
    """The pack at `target` if it is whole and of this source, else None."""
    if packing.read_head(target, {"fingerprint": fingerprint, "max_side": max_side, "n": count}) is None:
        return None
    try:
        packed = PackedClips(target, source)
        return None if packed.damaged(packing.spots(int(packed._lengths.sum()))) else packed
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _build(
    source: Source,
    recordings: list[int],
    max_side: int,
    target: Path,
    fingerprint: str,
    owner: str,
    workers: int,
    progress: Progress | None,
    value_range: ValueRange | None,
) -> None:
    base = _recordings(source)[0]
    with ThreadPoolExecutor(workers) as pool:
        entries = list(pool.map(lambda k: _first(base, k, max_side, value_range), recordings))
    starts = np.cumsum([0, *(entry.length * entry.frame for entry in entries)], dtype=np.int64)
    packing.check_room(source, 1.01 * int(starts[-1]), target.parent)
    offsets = np.cumsum([0, *(entry.length for entry in entries)])

    def fill(part: Path) -> None:
        why: dict[int, list[tuple[int, str]]] = {e: [(0, entry.why)] for e, entry in enumerate(entries) if entry.why}
        sums, good = np.zeros(int(offsets[-1]), np.uint32), np.zeros(int(offsets[-1]), bool)
        with (part / PIXELS).open("wb") as file:
            file.truncate(int(starts[-1]))
            writer = _Writer(file)
            pool = ThreadPoolExecutor(workers)
            try:
                waiting = {}
                for e, entry in enumerate(entries):
                    if not entry.why:
                        frames = _reduced(base, recordings[e], max_side, value_range)
                        waiting[pool.submit(writer.write, frames, entry, int(starts[e]))] = e
                for done, job in enumerate(as_completed(waiting), start=len(why) + 1):
                    e = waiting[job]
                    known, bad = job.result()
                    span = slice(offsets[e], offsets[e + 1])
                    sums[span], good[span] = [s or 0 for s in known], [s is not None for s in known]
                    if bad:
                        why[e] = bad
                    if progress is not None:
                        progress(done, len(entries))
            finally:
                writer.stopped.set()
                pool.shutdown(cancel_futures=True)
            file.flush()
            os.fsync(file.fileno())
        index: dict[str, np.ndarray] = {
            "starts": starts[:-1],
            "lengths": np.array([entry.length for entry in entries], dtype=np.int64),
            "shapes": np.array([entry.shape for entry in entries], dtype=np.int32).reshape(-1, 3),
            "sums": sums,
            "good": good,
        }
        head = {"fingerprint": fingerprint, "max_side": max_side, "n": len(entries), "owner": owner}
        head |= {"value_range": value_range}
        packing.write(part, index, {"names": [base.stems[k] for k in recordings], "bad": why}, head)

    packing.move_in(target, fill)


def _first(base: Clips, k: int, max_side: int, value_range: ValueRange | None) -> _Entry:
    """How many frames a recording has and how large they are, by decoding its first one."""
    try:
        length = base._length(k)
        if not length:
            return _Entry(0, (0, 0, 0))
        frame = base._decode(k, np.zeros(1, np.int64), max_side, base.stems[k])[0]
        return _Entry(length, reduce_to(as_uint8(frame, value_range), max_side).shape)
    except SampleError as error:
        return _Entry(0, (0, 0, 0), error.reason)


def _reduced(base: Clips, k: int, max_side: int, value_range: ValueRange | None) -> Iterator[np.ndarray | str]:
    """Every frame, reduced; in place of one that can't be read the reason."""
    for frame in base.recording(k, max_side):
        if isinstance(frame, SampleError):
            yield frame.reason
        else:
            yield reduce_to(as_uint8(frame, value_range), max_side)


class _Writer:
    """Writes recordings side by side into one file, each at its own place."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.lock, self.stopped = file, Lock(), Event()

    def write(
        self, frames: Iterator[np.ndarray | str], entry: _Entry, start: int
    ) -> tuple[list[int | None], list[tuple[int, str]]]:
        """The checksum of every frame, None where it can't be read, and from which frame on for which reason."""
        sums: list[int | None] = []
        bad: list[tuple[int, str]] = []
        for place, frame in enumerate(frames):
            if self.stopped.is_set():
                raise CancelledError
            if not isinstance(frame, str) and frame.shape != entry.shape:
                sizes = ["x".join(map(str, shape)) for shape in (frame.shape, entry.shape)]
                frame = f"frame {place} is {sizes[0]}, the first {sizes[1]}"
            if isinstance(frame, str):
                if not bad or bad[-1][1] != frame:
                    bad.append((place, frame))
                sums.append(None)
                continue
            with self.lock:
                self.file.seek(start + place * entry.frame)
                self.file.write(frame.data)
            sums.append(zlib.crc32(frame.data))
        return sums, bad
