"""What pixels are worth: the range of a source, its units, and the way to eight bits and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

from selftaught.data.pixels import TOP
from selftaught.errors import SampleError

ValueRange = list[list[float]]
"""[[low, high], ...], one pair per channel: plain lists, so that a run can record them."""


class Scale(list[list[float]]):
    """What a run scales images by: the value range of its training data, and the type that they had.

    It is a value range as `as_uint8` takes it, so that it goes wherever one goes; empty where the type's own range is
    meant. An image of another type than `depth` is scaled by its own type's range (see `of_depth`), whatever data it is
    found among.

    Args:
        pairs: the value range, or None.
        depth: "uint8", "uint16" or "float32"; None: not known, any image is scaled by the range.
    """

    def __init__(self, pairs: Sequence[Sequence[float]] | None = None, depth: str | None = None) -> None:
        super().__init__([float(low), float(high)] for low, high in pairs or ())
        self.depth = depth


_SAMPLED_FILES, _SAMPLED_PIXELS = 32, 40_000
_ROUNDING = 1e-3
_BAND = 1 << 20
_UNIT_OF_BYTE = (np.arange(256) / 255.0).astype(np.float32)


def as_uint8(image: np.ndarray, value_range: Sequence[Sequence[float]] | None = None) -> np.ndarray:
    """An image in eight bits; a uint8 image comes back untouched, whatever the range.

    A `Scale` leaves an image of another type than its own to that type's range.

    y = round(255 * clip((x - low_c) / (high_c - low_c), 0, 1)), per channel c; a channel with high = low becomes 0.

    Args:
        image: (H, W, C), (H, W), or a clip or volume with channels last; uint8, uint16 or float.
        value_range: [[low, high]] per channel, or one pair for all. None or empty: 0..65535 for uint16, 0..1 for
            floats.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: the range has another number of channels than the image.
        SampleError: the image has another type than a `Scale`, and does not use that type's range.
    """
    if image.dtype == np.uint8:
        return image
    depth = getattr(value_range, "depth", None)
    if depth is not None and depth != str(image.dtype):
        image, value_range = of_depth(image, depth, "this image"), None
        if image.dtype == np.uint8:
            return image
    pairs = _pairs(image.dtype, value_range, image.shape)
    low, span = pairs[:, 0], pairs[:, 1] - pairs[:, 0]
    factor = np.where(span > 0, 255.0 / np.where(span > 0, span, 1.0), 0.0)
    scaled = (image.astype(np.float32) - low.astype(np.float32)) * factor.astype(np.float32)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def to_unit(image: np.ndarray, value_range: Sequence[Sequence[float]] | None = None) -> np.ndarray:
    """An image in units of its range, x = (v - low_c) / (high_c - low_c) per channel c; `from_unit` is the inverse.

    Nothing is clipped: values outside of the range lie outside of [0, 1], and come back as they were.

    Args:
        image: (H, W, C) or (H, W), uint8, uint16 or float, in the file's own units.
        value_range: [[low, high]] per channel, or one pair for all. None or empty: the range of the type, 0..65535 for
            uint16 and 0..1 for floats. Eight bits are always 0..255, and a `Scale` leaves an image of another type than
            its own to that type's range.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: the range has another number of channels than the image.
        SampleError: the image has another type than a `Scale`, and does not use that type's range.
    """
    depth = getattr(value_range, "depth", None)
    if depth is not None and depth != str(image.dtype):
        of_depth(image, depth, "this image")
    low, span = _low_and_span(image.dtype, value_range, image.shape)
    if image.dtype == np.uint8 and image.size:
        return cv2.LUT(np.ascontiguousarray(image).reshape(len(image), -1), _UNIT_OF_BYTE).reshape(image.shape)
    found = np.empty(image.shape, np.float32)
    for rows in _bands(image):
        found[rows] = (image[rows].astype(np.float64) - low) / span
    return found


def from_unit(
    image: np.ndarray, dtype: np.dtype | type | str, value_range: Sequence[Sequence[float]] | None = None
) -> np.ndarray:
    """The inverse of `to_unit`, in the file's own units: v = low_c + x (high_c - low_c), rounded for whole numbers and
    clipped to what the type can hold.

    uint8 and uint16 come back exactly, whatever the range; floats to the precision of float32 over the range.

    Args:
        image: (H, W, C) or (H, W), in units of the range.
        dtype: of the file: uint8, uint16, int16 or float32.
        value_range: the one that `to_unit` was given.
    """
    kind = np.dtype(dtype)
    low, span = _low_and_span(kind, value_range, image.shape)
    found = np.empty(image.shape, kind)
    for rows in _bands(image):
        values = image[rows].astype(np.float64) * span + low
        if kind.kind in "ui":
            values = np.clip(np.rint(values), np.iinfo(kind).min, np.iinfo(kind).max)
        found[rows] = values
    return found


def _bands(image: np.ndarray) -> Iterator[slice]:
    """Rows some at a time: the double precision of a large picture all at once would take eight times its size."""
    each = max(1, _BAND * len(image) // max(1, image.size))
    return (slice(start, start + each) for start in range(0, len(image), each))


def _low_and_span(
    dtype: np.dtype, value_range: Sequence[Sequence[float]] | None, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    other = getattr(value_range, "depth", None) not in (None, str(np.dtype(dtype)))
    pairs = _pairs(dtype, None if dtype == np.uint8 or other else value_range, shape)
    span = pairs[:, 1] - pairs[:, 0]
    return pairs[:, 0], np.where(span > 0, span, 1.0)


def _pairs(dtype: np.dtype, value_range: Sequence[Sequence[float]] | None, shape: tuple[int, ...]) -> np.ndarray:
    """A range as (1 or C, 2), that of the type where there is none; an error where it fits no such image."""
    if value_range is None or not len(value_range):
        value_range = [[0.0, TOP.get(str(dtype), 1.0)]]
    pairs = np.asarray(value_range, dtype=np.float64).reshape(-1, 2)
    channels = shape[-1] if len(shape) > 2 else 1
    if len(pairs) not in (1, channels):
        raise ValueError(f"value_range has {len(pairs)} channels, the image {channels}")
    return pairs


def unit_scale(value_range: Sequence[Sequence[float]] | None, depth: str | None) -> Scale:
    """What brings images of a source to [0, 1] where they are given back in their own units (restoration).

    Images that use the range of their type are taken by that type: nothing of them lies outside, and 16-bit photographs
    look alike whatever they show. Counts of 10 to 14 bits and floats of other ranges are taken by the measured range.

    Args:
        value_range: of the source; None: eight bits.
        depth: type of the source.
    """
    top = TOP.get(str(depth), 1.0)
    pairs = np.asarray(value_range if value_range is not None else [[0.0, top]], dtype=np.float64)
    uses_type = pairs.min() >= -_ROUNDING * top and top / 4 <= pairs.max() <= (1 + _ROUNDING) * top
    return Scale(None if uses_type else value_range, depth)


def of_depth(image: np.ndarray, depth: str | None, name: str) -> np.ndarray:
    """An image whose type is not that of its source (or run), so that nothing but the image itself decides how it is
    scaled: by the range of its own type, never by that of the other files.

    Eight bits stay as they are; 16 bits and floats stay where the source has 8 bits, so that they are scaled by their
    type, and become 8 bits where the source has a range of its own.

    Args:
        image: (H, W, C) uint8, uint16 or float32.
        depth: type of the source, "uint8", "uint16" or "float32"; None: any.
        name: of the sample, for the error.

    Raises:
        SampleError: the image does not use the range of its type (counts of 10 to 14 bits in 16, floats outside
            [0, 1]), which leaves its scale unknown.
    """
    if depth is None or str(image.dtype) == depth or image.dtype == np.uint8:
        return image
    bits = {"uint8": "8-bit images", "uint16": "16-bit images", "float32": "float images"}[depth]
    low, high = float(image.min()), float(image.max())
    if image.dtype == np.uint16 and high < 2**14:
        raise SampleError(name, f"16-bit values up to {high:.0f} among {bits}, whose range is not known; convert it")
    if image.dtype.kind == "f" and (low < -_ROUNDING or high > 1 + _ROUNDING):
        raise SampleError(name, f"float values {low:.4g} to {high:.4g} among {bits}, whose range is not known")
    return image if depth == "uint8" else as_uint8(image)


def common_depth(depths: Sequence[str]) -> str | None:
    """The type that most of some files have, the one of fewer bits where two are even; None without files."""
    found = sorted(set(depths), key=lambda d: (-list(depths).count(d), ("uint8", "uint16", "float32").index(d)))
    return found[0] if found else None


class Readable(Protocol):
    """What `robust_range` asks of a source."""

    @property
    def depth(self) -> str | None:
        """Type of the samples that count, or None: all but eight bits."""

    def __len__(self) -> int: ...

    def read(self, i: int, /) -> np.ndarray:
        """One sample, channels last."""
        ...


def robust_range(source: Readable) -> ValueRange | None:
    """The range that `as_uint8` scales a source by: its 0.1th and 99.9th percentiles, or None where all samples are
    uint8.

    At most 32 samples, spread evenly, are read and thinned to 40,000 pixels each; samples that can't be read, or are of
    another type than `Source.depth`, are passed over. Three channels share one range, so that colours keep their
    balance; any other number of channels gets one range each.

    Args:
        source: images, clips or volumes with a fixed number of channels.
    """
    pixels = []
    for i in np.unique(np.linspace(0, len(source) - 1, min(_SAMPLED_FILES, len(source))).astype(np.int64)):
        try:
            image = source.read(int(i))
        except SampleError:
            continue
        if image.dtype == np.uint8 or str(image.dtype) != (source.depth or str(image.dtype)):
            continue
        flat = image.reshape(-1, image.shape[-1])
        pixels.append(flat[:: max(1, len(flat) // _SAMPLED_PIXELS)].astype(np.float64))
    if not pixels:
        return None
    values = np.concatenate(pixels)
    if values.shape[1] == 3:
        values = values.reshape(-1, 1)
        low, high = np.percentile(values, [0.1, 99.9], axis=0)
        low, high = np.repeat(low, 3), np.repeat(high, 3)
    else:
        low, high = np.percentile(values, [0.1, 99.9], axis=0)
    return [[float(a), float(b)] for a, b in zip(low, high, strict=True)]
