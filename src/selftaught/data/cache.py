"""The packed cache: a source decoded once into memory-mapped bytes, so that epochs never decode.

A pack of images is a folder ``NAME-FINGERPRINT`` of four files: ``pixels.bin`` (uint8 images one after the other),
``index.npz`` (where each lies, its size and checksum), ``samples.json`` (names and what was wrong with which) and
``pack.json`` (format, fingerprint, sizes). It is written beside its place and moved there in one step: a pack that can
be seen is whole. Clips are packed as whole recordings (`packed_clips`).
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._reading import json_of
from selftaught.data import _packing as packing
from selftaught.data._packing import PIXELS, Progress, reduce_to
from selftaught.data.fields import LABEL
from selftaught.data.kinds import kind_of
from selftaught.data.packed_clips import PackedClips, PackedParts, pack_clips
from selftaught.data.scaling import ValueRange, as_uint8
from selftaught.data.source import Source, digest
from selftaught.errors import SampleError, UserError

__all__ = ["PackedSource", "pack", "reduce_to"]

PACKED = ("image", "clip")
"""Kinds of samples that can be packed."""


class PackedSource(Source):
    """A source whose images are read from a pack; everything else (names, labels, groups) is the original source's."""

    def __init__(self, folder: Path, source: Source) -> None:
        """Args: the folder of a pack that `pack` made; the source that it was made from."""
        self.folder = folder
        self.name, self.labels, self.classes, self.groups = source.name, source.labels, source.classes, source.groups
        self.given, self.generated, self.channels = source.given, source.generated, source.channels
        self.targets, self.notes, self.depth, self.values = source.targets, source.notes, "uint8", source.values
        self.bands = source.bands
        head = json_of(folder / "pack.json")
        samples = json_of(folder / "samples.json")
        self.names = samples["names"]
        self._bad: dict[int, str] = {int(i): reason for i, reason in samples["bad"].items()}
        self._range: ValueRange | None = head["value_range"]
        self._fingerprint, self.max_side, self.nbytes = (
            str(head["fingerprint"]),
            int(head["max_side"]),
            int(head["bytes"]),
        )
        with np.load(folder / "index.npz") as index:
            self._offsets, self._shapes, self._sums = index["offsets"], index["shapes"], index["sums"]
        self._mapped: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One image (H, W, C) uint8, its shorter side at most `max_side`; see `Source.read`."""
        if i in self._bad:
            raise SampleError(self.names[i], self._bad[i])
        return self._view(i).copy()

    def _view(self, i: int) -> np.ndarray:
        if self._mapped is None:
            try:
                self._mapped = np.memmap(self.folder / PIXELS, np.uint8, "r")
            except (OSError, ValueError):
                raise SampleError(self.names[i], "the packed cache is gone or was made anew meanwhile") from None
        start = int(self._offsets[i])
        return np.asarray(self._mapped[start : int(self._offsets[i + 1])]).reshape(self._shapes[i])

    def damaged(self, positions: Any) -> list[int]:
        """Those of the positions whose bytes no longer have the checksum that they were written with."""
        return [
            int(i)
            for i in positions
            if int(i) not in self._bad and zlib.crc32(self._view(int(i)).data) != self._sums[i]
        ]

    @property
    def value_range(self) -> ValueRange | None:
        """The range that the original source was scaled by when it was packed; the pack itself is uint8."""
        return self._range

    def fingerprint(self) -> str:
        """Of the original source and the size that it was packed at."""
        return digest("packed", self._fingerprint, self.max_side)

    def describe(self) -> str:
        """One line, the size of the pack at the end."""
        return f"{super().describe()} (packed, {self.nbytes / 1e6:,.0f} MB, shorter side at most {self.max_side})"


def pack(
    source: Source, max_side: int, folder: str | Path, *, workers: int | None = None, progress: Progress | None = None
) -> PackedSource | PackedClips | PackedParts:
    """Decode a source once into a pack, or open the pack that is there.

    A pack belongs to the content of the source (`Source.fingerprint`) and to `max_side`. When the source has changed a
    new one is made and the old one removed; one that is damaged (sizes, index, checksums of 32 samples) is made again.
    Two processes at a time make it once: the second waits. Samples that can't be read are noted, and raise the same
    SampleError when read from the pack.

    Args:
        source: images or clips of any type; 16-bit and float ones are brought to eight bits by the source's value
            range. Of clips whole recordings are packed, at the rate of the source (``?fps=``); of sources that lie end
            to end (`Concat`) each has a pack of its own.
        max_side: images whose shorter side is longer are reduced to it (area averaging).
        folder: where packs lie; it is made if need be.
        workers: threads that decode; None: one per core.
        progress: called with (samples packed, samples in all), of clips with recordings.

    Raises:
        UserError: the source holds neither images nor recordings, has other fields to read or brings its own views,
            max_side is not positive, or the disk has too little room (how much is wanted is said).
    """
    if source.modality not in PACKED:
        plural = kind_of(source.modality).plural
        raise UserError(f"{source.name}: only images and clips are packed, not {plural}; go without")
    others = [name for name in source.fields if name not in (source.main, LABEL, *source.values)]
    if others:
        plural = kind_of(source.modality).plural
        raise UserError(f"{source.name}: its samples have {', '.join(others)} besides {plural}; go without the cache")
    if max_side < 1:
        raise UserError(f"max_side={max_side} must be at least 1")
    threads = max(workers or os.cpu_count() or 1, 1)
    if source.modality == "clip":
        return pack_clips(source, max_side, folder, threads, progress)
    if source.brings():
        raise UserError(f"{source.name}: brings its own views, which are made anew each time; go without the cache")
    fingerprint = source.fingerprint()
    return packing.keep(
        source,
        folder,
        [fingerprint, max_side, source.value_range],
        [source.origin(), max_side],
        lambda target: _open_valid(target, source, fingerprint, max_side),
        lambda target, owner: _build(source, max_side, target, fingerprint, owner, threads, progress),
    )


def _open_valid(target: Path, source: Source, fingerprint: str, max_side: int) -> PackedSource | None:
    """The pack at `target` if it is whole and of this source, else None."""
    if packing.read_head(target, {"fingerprint": fingerprint, "max_side": max_side, "n": len(source)}) is None:
        return None
    try:
        packed = PackedSource(target, source)
        return None if packed.damaged(packing.spots(len(packed))) else packed
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(
    source: Source, max_side: int, target: Path, fingerprint: str, owner: str, workers: int, progress: Progress | None
) -> None:
    packing.check_room(source, _wanted(source, max_side), target.parent)

    def fill(part: Path) -> None:
        offsets, shapes, sums = [0], [], []
        bad: dict[int, str] = {}
        with (part / PIXELS).open("wb") as file:
            for i, image in enumerate(_reduced(source, max_side, workers)):
                if isinstance(image, str):
                    bad[i] = image
                    shapes.append((0, 0, 0))
                    sums.append(0)
                else:
                    file.write(image.data)
                    shapes.append(image.shape)
                    sums.append(zlib.crc32(image.data))
                offsets.append(offsets[-1] + (0 if isinstance(image, str) else image.nbytes))
                if progress is not None:
                    progress(i + 1, len(source))
            file.flush()
            os.fsync(file.fileno())
        index: dict[str, np.ndarray] = {
            "offsets": np.array(offsets, dtype=np.int64),
            "shapes": np.array(shapes, dtype=np.int32).reshape(-1, 3),
            "sums": np.array(sums, dtype=np.uint32),
        }
        head = {"fingerprint": fingerprint, "max_side": max_side, "n": len(source), "owner": owner}
        head |= {"value_range": source.value_range}
        packing.write(part, index, {"names": list(source.names), "bad": bad}, head)

    packing.move_in(target, fill)


def _one(source: Source, i: int, max_side: int) -> np.ndarray | str:
    try:
        return reduce_to(as_uint8(source.read(i, max_side), source.value_range), max_side)
    except SampleError as error:
        return error.reason


def _reduced(source: Source, max_side: int, workers: int) -> Iterator[np.ndarray | str]:
    """Every image in order, reduced; a bounded number of them is decoded ahead."""
    source.value_range  # noqa: B018 - chosen once, before the threads start
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting: deque[Future[np.ndarray | str]] = deque()
        for i in range(len(source)):
            waiting.append(pool.submit(_one, source, i, max_side))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _wanted(source: Source, max_side: int) -> float:
    """Bytes of a pack, by the mean size of at most 24 samples, and a tenth to spare."""
    sizes = []
    for i in np.unique(np.linspace(0, len(source) - 1, min(24, len(source))).astype(np.int64)):
        image = _one(source, int(i), max_side)
        if not isinstance(image, str):
            sizes.append(image.nbytes)
    return 1.1 * len(source) * float(np.mean(sizes)) if sizes else 0.0
