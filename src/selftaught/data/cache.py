"""The packed cache: a source decoded once into memory-mapped bytes, so that epochs never decode.

A pack is a folder ``NAME-FINGERPRINT`` of four files: ``pixels.bin`` (uint8 images one after the other), ``index.npz``
(where each lies, its size and checksum), ``samples.json`` (names and what was wrong with which) and ``pack.json``
(format, fingerprint, sizes). It is written beside its place and moved there in one step: a pack that can be seen is
whole.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock

from selftaught.data.fields import LABEL
from selftaught.data.kinds import kind_of
from selftaught.data.pixels import ValueRange, as_uint8
from selftaught.data.source import Source, digest
from selftaught.errors import SampleError, UserError

Progress = Callable[[int, int], None]

_FORMAT = 1
_SPOT_CHECKS = 32


class PackedSource(Source):
    """A source whose images are read from a pack; everything else (names, labels, groups) is the original source's."""

    def __init__(self, folder: Path, source: Source) -> None:
        """Args: the folder of a pack that `pack` made; the source that it was made from."""
        self.folder = folder
        self.name, self.labels, self.classes, self.groups = source.name, source.labels, source.classes, source.groups
        self.given, self.generated, self.channels = source.given, source.generated, source.channels
        self.targets, self.notes, self.depth, self.values = source.targets, source.notes, "uint8", source.values
        self.bands = source.bands
        head = json.loads((folder / "pack.json").read_text())
        samples = json.loads((folder / "samples.json").read_text())
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
                self._mapped = np.memmap(self.folder / "pixels.bin", np.uint8, "r")
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
) -> PackedSource:
    """Decode a source once into a pack, or open the pack that is there.

    A pack belongs to the content of the source (`Source.fingerprint`) and to `max_side`. When the source has changed a
    new one is made and the old one removed; one that is damaged (sizes, index, checksums of 32 samples) is made again.
    Two processes at a time make it once: the second waits. Samples that can't be read are noted, and raise the same
    SampleError when read from the pack.

    Args:
        source: images of any type; 16-bit and float ones are brought to eight bits by the source's value range.
        max_side: images whose shorter side is longer are reduced to it (area averaging).
        folder: where packs lie; it is made if need be.
        workers: threads that decode; None: one per core.
        progress: called with (samples packed, samples in all).

    Raises:
        UserError: the source holds no images, has other fields to read or brings its own views, max_side is not
            positive, or the disk has too little room (how much is wanted is said).
    """
    if source.modality != "image":
        raise UserError(f"{source.name}: only images are packed, not {kind_of(source.modality).plural}; go without")
    others = [name for name in source.fields if name not in (source.main, LABEL, *source.values)]
    if others:
        raise UserError(f"{source.name}: its samples have {', '.join(others)} besides images; go without the cache")
    if source.brings():
        raise UserError(f"{source.name}: brings its own views, which are made anew each time; go without the cache")
    if max_side < 1:
        raise UserError(f"max_side={max_side} must be at least 1")
    fingerprint = source.fingerprint()
    folder = Path(folder)
    owner = digest("pack", source.origin(), max_side)
    slug = re.sub(r"[^\w.-]+", "-", source.name).strip("-")[:40] or "source"
    target = folder / f"{slug}-{digest(_FORMAT, fingerprint, max_side, source.value_range)[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            found = _open_valid(target, source, fingerprint, max_side)
            if found is not None:
                return found
            _build(source, max_side, target, fingerprint, owner, workers or os.cpu_count() or 1, progress)
            _remove_outdated(folder, target, owner)
            return PackedSource(target, source)
    except OSError as error:
        short = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise UserError(
            f"{folder}: the cache of {source.name} can't be written ({short}); choose another folder or go without"
        ) from None


def _open_valid(target: Path, source: Source, fingerprint: str, max_side: int) -> PackedSource | None:
    """The pack at `target` if it is whole and of this source, else None."""
    try:
        head = json.loads((target / "pack.json").read_text())
        if (head["format"], head["fingerprint"], head["max_side"], head["n"]) != (
            _FORMAT,
            fingerprint,
            max_side,
            len(source),
        ):
            return None
        if head["index"] != zlib.crc32((target / "index.npz").read_bytes()):
            return None
        if head["samples"] != zlib.crc32((target / "samples.json").read_bytes()):
            return None
        if (target / "pixels.bin").stat().st_size != head["bytes"]:
            return None
        packed = PackedSource(target, source)
        spots = np.unique(np.linspace(0, len(packed) - 1, min(_SPOT_CHECKS, len(packed))).astype(np.int64))
        return None if packed.damaged(spots) else packed
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(
    source: Source, max_side: int, target: Path, fingerprint: str, owner: str, workers: int, progress: Progress | None
) -> None:
    _check_room(source, max_side, target.parent)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        offsets, shapes, sums = [0], [], []
        bad: dict[int, str] = {}
        with (part / "pixels.bin").open("wb") as file:
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
        _write_index(part, source, offsets, shapes, sums, bad)
        head = {
            "format": _FORMAT,
            "fingerprint": fingerprint,
            "max_side": max_side,
            "n": len(source),
            "bytes": offsets[-1],
            "owner": owner,
            "value_range": source.value_range,
            "index": zlib.crc32((part / "index.npz").read_bytes()),
            "samples": zlib.crc32((part / "samples.json").read_bytes()),
        }
        (part / "pack.json").write_text(json.dumps(head))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_index(
    part: Path, source: Source, offsets: list[int], shapes: list[Any], sums: list[int], bad: dict[int, str]
) -> None:
    np.savez(
        part / "index.npz",
        offsets=np.array(offsets, dtype=np.int64),
        shapes=np.array(shapes, dtype=np.int32).reshape(-1, 3),
        sums=np.array(sums, dtype=np.uint32),
    )
    (part / "samples.json").write_text(json.dumps({"names": list(source.names), "bad": bad}))


def reduce_to(image: np.ndarray, max_side: int) -> np.ndarray:
    """An image (H, W, C) uint8 whose shorter side is at most `max_side`, by area averaging; smaller ones come back as
    they are.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if short <= max_side:
        return np.ascontiguousarray(image)
    size = (max(round(width * max_side / short), 1), max(round(height * max_side / short), 1))
    small = np.empty((size[1], size[0], image.shape[2]), dtype=np.uint8)
    for c in range(0, image.shape[2], 4):  # OpenCV averages areas of at most four channels at a time
        some = np.ascontiguousarray(image[:, :, c : c + 4])
        small[:, :, c : c + 4] = cv2.resize(some, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    return small


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


def _check_room(source: Source, max_side: int, folder: Path) -> None:
    """Refuse a pack that the disk has no room for, from the mean size of at most 24 samples and a tenth to spare."""
    sizes = []
    for i in np.unique(np.linspace(0, len(source) - 1, min(24, len(source))).astype(np.int64)):
        image = _one(source, int(i), max_side)
        if not isinstance(image, str):
            sizes.append(image.nbytes)
    wanted = 1.1 * len(source) * float(np.mean(sizes)) if sizes else 0.0
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise UserError(
            f"{folder}: the cache of {source.name} wants about {wanted / 1e9:.3g} GB and the disk has "
            f"{free / 1e9:.3g} GB free; choose another folder, a smaller side, or go without the cache"
        )


def _remove_outdated(folder: Path, target: Path, owner: str) -> None:
    """Packs of the same source at the same size whose content has changed since; a reader that has one mapped keeps
    its pages.
    """
    for other in folder.glob("*/pack.json"):
        try:
            same = json.loads(other.read_text()).get("owner") == owner
        except (OSError, ValueError):
            continue
        if same and other.parent != target:
            shutil.rmtree(other.parent, ignore_errors=True)
