"""Volumes as 2-D slices of one size, in partitions along the slice axis, and the way back into the volume's space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from selftaught._words import plural
from selftaught.data.fields import Field
from selftaught.data.source import Source, digest
from selftaught.errors import SampleError, UserError

__all__ = ["Preparation", "Slices", "label_values", "partition_of", "volume_sets"]

Axis = Literal["auto", "depth", "height", "width"]
_AXES = ("depth", "height", "width")
_THICK = 1.5
_KEPT_BYTES = 1 << 31
_MOST_VALUES = 64


def partition_of(count: int, parts: int) -> np.ndarray:
    """Partition of each of a volume's slices, (count,) int64: ``parts`` runs of count // parts; -1 for the rest at the
    end.

    Args:
        count: slices of the volume.
        parts: partitions.

    Raises:
        UserError: fewer slices than partitions.
    """
    if not 1 <= parts <= count:
        raise UserError(f"{count} slices can't be cut in {parts} partitions")
    part = np.arange(count, dtype=np.int64) // (count // parts)
    return np.where(part < parts, part, -1)


def volume_sets(count: int, labelled: int, validation: int, which: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Which volumes are annotated, and which validate: a draw by the number of volumes and ``which`` alone.

    Args:
        count: volumes with masks.
        labelled: how many are annotated; 0: all that don't validate.
        validation: how many validate; fewer where not enough are left, one at least stays annotated.
        which: 1 to 5, the subsets c1 to c5 of the paper's protocol.

    Raises:
        UserError: fewer volumes than are to be annotated.
    """
    if labelled > count or count < 1:
        raise UserError(f"labels={labelled}: there are {count} volumes with masks")
    drawn = np.random.default_rng([2006, which]).permutation(count)
    held = min(validation, count - max(1, labelled))
    return np.sort(drawn[: labelled or count - held]), np.sort(drawn[count - held :])


@dataclass(frozen=True)
class Preparation:
    """How a volume becomes slices that a network sees, and back.

    Intensities are (x - p1) / (p99 - p1), of each channel and volume, not clipped; then every slice is resampled and
    cropped, or filled up with zeros, about its middle.

    Attributes:
        side: of the slices, in pixels.
        pixel: millimetres of a pixel; 0: the longer side of a slice becomes ``side``.
        axis: along which slices follow each other; auto: that of the thickest voxels where these are 1.5 times as thick
            as the others, else the depth.
    """

    side: int
    pixel: float = 0.0
    axis: Axis = "auto"

    def slices(self, volume: np.ndarray, spacing: np.ndarray | None = None, name: str = "volume") -> np.ndarray:
        """Slices (n, side, side, C) float32 of a volume (D, H, W, C).

        Raises:
            SampleError: all voxels of a channel are alike.
        """
        if volume.ndim != 4:
            raise SampleError(name, f"{volume.ndim} axes where a volume has (D, H, W, C)")
        x = np.moveaxis(volume, self._axis(spacing), 0).astype(np.float32)
        low, high = (np.percentile(x, p, axis=(0, 1, 2)).astype(np.float32) for p in (1, 99))
        if (high <= low).any():
            raise SampleError(name, "all of its voxels are alike (1st and 99th percentile are equal)")
        x = (x - low) / (high - low)
        size = self._size(x.shape[1:3], spacing)
        return np.stack([_fitted(_resized(one, size), self.side) for one in x])

    def masks(self, mask: np.ndarray, spacing: np.ndarray | None = None) -> np.ndarray:
        """Slices (n, side, side) of whole numbers (D, H, W), the nearest voxel's."""
        x = np.moveaxis(mask, self._axis(spacing), 0).astype(np.int32)
        size = self._size(x.shape[1:3], spacing)
        found = [cv2.resize(one, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for one in x]
        return np.stack([_fitted(one[..., None], self.side)[..., 0] for one in found]).astype(np.int64)

    def back(self, shares: np.ndarray, shape: Sequence[int], spacing: np.ndarray | None = None) -> np.ndarray:
        """Classes (D, H, W) uint8 of a volume of that shape, of what was found for its slices.

        Args:
            shares: (n, K, side, side) share of each class; what was cropped away is of class 0.
            shape: (D, H, W) of the volume.
            spacing: of the volume, as in `slices`.

        Raises:
            UserError: slices that the volume doesn't have.
        """
        axis = self._axis(spacing)
        flat = [int(n) for n in shape[:3]]
        count = flat.pop(axis)
        if len(shares) != count:
            raise UserError(f"{len(shares)} slices for a volume of {count}")
        size = self._size(tuple(flat), spacing)
        found = np.empty((count, *flat), dtype=np.uint8)
        for k, one in enumerate(shares):
            whole = _unfitted(one.astype(np.float32), size)
            large = [cv2.resize(part, tuple(flat)[::-1], interpolation=cv2.INTER_LINEAR) for part in whole]
            found[k] = np.argmax(np.stack(large), axis=0)
        return np.ascontiguousarray(np.moveaxis(found, 0, axis))

    def _axis(self, spacing: np.ndarray | None) -> int:
        if self.axis != "auto":
            return _AXES.index(self.axis)
        if spacing is None or not np.isfinite(spacing).all():
            return 0
        order = np.argsort(spacing)
        return int(order[2]) if spacing[order[2]] > _THICK * spacing[order[1]] else 0

    def _size(self, flat: Sequence[int], spacing: np.ndarray | None) -> tuple[int, int]:
        """Height and width of a slice (h, w) after resampling."""
        steps = np.ones(2)
        if spacing is not None and np.isfinite(spacing).all():
            steps = np.delete(np.asarray(spacing, dtype=np.float64), self._axis(spacing))
        reach = np.asarray(flat) * steps
        pixel = self.pixel or float(reach.max()) / self.side
        height, width = (max(1, round(float(r) / pixel)) for r in reach)
        return height, width


def _resized(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (h, w, C) at another size; where it gets smaller every pixel counts."""
    if x.shape[:2] == size:
        return x
    way = cv2.INTER_AREA if size[0] * size[1] < x.shape[0] * x.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(x, size[::-1], interpolation=way).reshape(*size, -1)


def _places(length: int, side: int) -> tuple[slice, slice]:
    """Where a line lies in the square that it is cropped or filled up to, and which part of it."""
    start = abs(length - side) // 2
    if length >= side:
        return slice(0, side), slice(start, start + side)
    return slice(start, start + length), slice(0, length)


def _fitted(x: np.ndarray, side: int) -> np.ndarray:
    """(h, w, C) cropped, or filled up with zeros, to (side, side, C) about its middle."""
    (to_y, from_y), (to_x, from_x) = (_places(n, side) for n in x.shape[:2])
    found = np.zeros((side, side, x.shape[2]), dtype=x.dtype)
    found[to_y, to_x] = x[from_y, from_x]
    return found


def _unfitted(shares: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(K, side, side) put back into (K, h, w); what was cropped away is of class 0."""
    side = shares.shape[1]
    (to_y, from_y), (to_x, from_x) = (_places(n, side) for n in size)
    found = np.zeros((len(shares), *size), dtype=np.float32)
    found[0] = 1
    found[:, from_y, from_x] = shares[:, to_y, to_x]
    return found


def label_values(source: Source) -> list[int]:
    """All numbers in the masks of a source, sorted, 0 for the background among them.

    Raises:
        UserError: no masks, none that can be read, or more numbers than structures can be.
    """
    if "mask" not in source.fields:
        raise UserError(f"{source.name} has no masks; join them: pairs:?volume=SCANS/&mask=MASKS/")
    found = {0}
    for i in range(len(source)):
        try:
            found.update(np.unique(source.sample(i, ["mask"])["mask"]).tolist())
        except SampleError:
            continue
    if not 2 <= len(found) <= _MOST_VALUES:
        raise UserError(f"{source.name}: masks of {len(found)} values; 2 to {_MOST_VALUES} are structures")
    return sorted(int(v) for v in found)


class Slices(Source):
    """The slices of a source's volumes, one volume after the other: fields ``volume`` (1, side, side, C) float32, and
    ``mask`` (side, side) where masks are asked for.

    Volumes are read and prepared once, and stay in memory up to 2 GiB.

    Attributes:
        volume_of: (n,) number of the volume, in the source, that a slice comes from.
        part_of: (n,) its partition; -1 where the slice is in none.
        brings_truth: whether the volumes have masks.
    """

    modality = "volume"

    def __init__(
        self, source: Source, preparation: Preparation, *, parts: int = 4, values: Sequence[int] | None = None
    ) -> None:
        """Prepare the volumes.

        Args:
            source: of volumes.
            preparation: how they become slices.
            parts: partitions of a volume; volumes of fewer slices are left out.
            values: the numbers in the masks, class by class; None: no masks.

        Raises:
            UserError: no volume that can be used; a mask with another number.
        """
        self.source, self.preparation, self.parts = source, preparation, parts
        self.values_of_masks = None if values is None else list(values)
        self.name, self.channels, self.generated = source.name, source.channels, source.generated
        self.brings_truth = "mask" in source.fields
        self._kept: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        self._bytes = 0
        rows, notes = [], []
        for v in range(len(source)):
            try:
                count = len(self._volume(v)[0])
            except SampleError as error:
                notes.append(f"{source.names[v]}: left out, {error.reason}")
                continue
            if count < parts:
                self._kept.pop(v, None)
                notes.append(f"{source.names[v]}: left out, {count} slices where {parts} partitions need as many")
                continue
            part = partition_of(count, parts)
            rows += [(v, k, int(part[k])) for k in range(count)]
        if not rows:
            raise UserError(f"{source.name}: no volume can be used" + (f" ({notes[0]})" if notes else ""))
        table = np.array(rows, dtype=np.int64)
        self.volume_of, self.place_of, self.part_of = table.T
        self.groups = self.volume_of.copy()
        self.names = [f"{source.names[v]}#{k:03d}" for v, k, _ in rows]
        volumes = len(np.unique(self.volume_of))
        self.notes = [
            *source.notes,
            f"{plural(len(rows), 'slice')} of {plural(volumes, 'volume')}, {plural(parts, 'partition')} each",
            *notes,
        ]

    def _volume(self, v: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Slices and masks of a volume."""
        if v in self._kept:
            return self._kept[v]
        spacing = None if self.source.spacing is None else self.source.spacing[v]
        name = self.source.names[v]
        found: tuple[np.ndarray, np.ndarray | None]
        if self.values_of_masks is None:
            found = self.preparation.slices(self.source.read(v), spacing, name), None
        else:
            sample = self.source.sample(v, [self.source.main, "mask"])
            volume, mask = sample[self.source.main], sample["mask"]
            if volume.shape[:3] != mask.shape:
                raise SampleError(name, f"a mask of {mask.shape} beside a volume of {volume.shape[:3]}")
            masks = self.preparation.masks(self._classes(mask, name), spacing)
            found = self.preparation.slices(volume, spacing, name), masks
        size = sum(part.nbytes for part in found if part is not None)
        if self._bytes + size <= _KEPT_BYTES:
            self._kept[v], self._bytes = found, self._bytes + size
        return found

    def _classes(self, mask: np.ndarray, name: str) -> np.ndarray:
        known = np.asarray(self.values_of_masks)
        strange = np.setdiff1d(mask, known)
        if len(strange):
            raise UserError(f"{name}: its mask holds {strange[0]}, which is none of the structures {known.tolist()}")
        order = np.argsort(known)
        return order[np.searchsorted(known[order], mask)]

    @property
    def fields(self) -> dict[str, Field]:
        """The slice, and its mask."""
        more = {} if self.values_of_masks is None else {"mask": Field("mask")}
        return {"volume": Field("volume", self.channels)} | more

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One slice (1, side, side, C)."""
        return self._volume(int(self.volume_of[i]))[0][self.place_of[i]][None].copy()

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name != "mask":
            return self.read(i)
        masks = self._volume(int(self.volume_of[i]))[1]
        assert masks is not None
        return masks[self.place_of[i]].copy()

    def describe(self) -> str:
        """The volumes' line."""
        return self.source.describe()

    def origin(self) -> str:
        """Where the volumes come from."""
        return self.source.origin()

    def fingerprint(self) -> str:
        """Of the volumes and of how they were prepared."""
        return digest("slices", self.source.fingerprint(), repr(self.preparation), self.parts, self.values_of_masks)
