"""Pixels of any depth and any number of channels: layouts, channel counts, and the way to eight bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from selftaught.errors import SampleError

ValueRange = list[list[float]]
"""[[low, high], ...], one pair per channel: plain lists, so that a run can record them."""

Layout = Literal["hwc", "guess", "pages"]

_SAMPLED_FILES, _SAMPLED_PIXELS = 32, 40_000
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def as_uint8(image: np.ndarray, value_range: Sequence[Sequence[float]] | None = None) -> np.ndarray:
    """An image in eight bits; a uint8 image comes back untouched, whatever the range.

    y = round(255 * clip((x - low_c) / (high_c - low_c), 0, 1)), per channel c; a channel with high = low becomes 0.

    Args:
        image: (H, W, C), (H, W), or a clip or volume with channels last; uint8, uint16 or float.
        value_range: [[low, high]] per channel, or one pair for all. None: 0..65535 for uint16, 0..1 for floats.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: the range has another number of channels than the image.
    """
    if image.dtype == np.uint8:
        return image
    if value_range is None:
        value_range = [[0.0, 65535.0 if image.dtype == np.uint16 else 1.0]]
    pairs = np.asarray(value_range, dtype=np.float64).reshape(-1, 2)
    channels = image.shape[-1] if image.ndim > 2 else 1
    if len(pairs) not in (1, channels):
        raise ValueError(f"value_range has {len(pairs)} channels, the image {channels}")
    low, span = pairs[:, 0], pairs[:, 1] - pairs[:, 0]
    factor = np.where(span > 0, 255.0 / np.where(span > 0, span, 1.0), 0.0)
    scaled = (image.astype(np.float32) - low.astype(np.float32)) * factor.astype(np.float32)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


class Readable(Protocol):
    """What `robust_range` asks of a source."""

    def __len__(self) -> int: ...

    def read(self, i: int, /) -> np.ndarray:
        """One sample, channels last."""
        ...


def robust_range(source: Readable) -> ValueRange | None:
    """The range that `as_uint8` scales a source by: its 0.1th and 99.9th percentiles, or None where all samples are
    uint8.

    At most 32 samples, spread evenly, are read and thinned to 40,000 pixels each; samples that can't be read are
    passed over. Three channels share one range, so that colours keep their balance; any other number of channels gets
    one range each.

    Args:
        source: images, clips or volumes with a fixed number of channels.
    """
    pixels = []
    for i in np.unique(np.linspace(0, len(source) - 1, min(_SAMPLED_FILES, len(source))).astype(np.int64)):
        try:
            image = source.read(int(i))
        except SampleError:
            continue
        if image.dtype == np.uint8:
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


def channel_axis(shape: Sequence[int], pages: bool = False) -> int:
    """Which axis of a three-dimensional image holds the channels: 0 or 2.

    Two equal sides make the third axis the channels: (64, 64, 13) and (13, 64, 64) need no guess. Otherwise the
    shorter one of the first and the last axis is taken.

    Args:
        shape: three sizes.
        pages: which axis wins a tie; True: the first (pages of a TIFF), False: the last.
    """
    a, b, c = shape
    if a == b != c:
        return 2
    if b == c != a:
        return 0
    if a == c:
        return 0 if pages else 2
    return 0 if a < c else 2


def as_hwc(image: np.ndarray, name: str, layout: Layout = "guess") -> np.ndarray:
    """An array of two or three axes as a contiguous (H, W, C) image in uint8, uint16 or float32.

    bool becomes 0 and 255; every other integer or float type becomes float32.

    Args:
        image: (H, W), (H, W, C) or (C, H, W); axes of size 1 beyond three are dropped.
        name: of the sample, for the errors.
        layout: where the channels are: "hwc" last; "guess" and "pages" by `channel_axis`.

    Raises:
        SampleError: zero size, more than three axes, not numbers, or NaN or infinite values.
    """
    if image.ndim > 3:
        image = image.reshape([n for n in image.shape if n != 1])
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3:
        raise SampleError(name, f"{image.ndim} axes where an image has 2 or 3")
    if 0 in image.shape:
        raise SampleError(name, f"zero size {image.shape[0]}x{image.shape[1]}x{image.shape[2]}")
    if layout != "hwc" and image.shape[2] != 1 and channel_axis(image.shape, layout == "pages") == 0:
        image = np.moveaxis(image, 0, 2)
    return finite(native(image, name), name)


def native(image: np.ndarray, name: str) -> np.ndarray:
    """The same array, contiguous, as uint8, uint16 or float32; bool becomes 0 and 255."""
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    elif image.dtype.kind not in "uif":
        raise SampleError(name, f"{image.dtype} is no type for pixels")
    elif image.dtype == np.uint16:
        image = image.astype(np.uint16)
    elif image.dtype != np.uint8:
        with np.errstate(over="ignore"):
            image = image.astype(np.float32)
    return np.ascontiguousarray(image)


def finite(values: np.ndarray, name: str) -> np.ndarray:
    """The same array, or a SampleError where it holds NaN or infinite values."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        share = 1 - np.isfinite(values).mean()
        raise SampleError(name, f"NaN or infinite values ({share:.2%} of them)")
    return values


def conform(image: np.ndarray, channels: int, name: str, convert: bool = False) -> np.ndarray:
    """An image brought to the channels of its source, where that loses nothing.

    Grey is repeated to 3; RGBA is laid on white where the source is RGB. With `convert` (the user asked for these
    channels) colour becomes grey by ITU-R BT.601 weights.

    Args:
        image: (H, W, c).
        channels: channels of the source.
        name: of the sample, for the error.
        convert: whether colour may become grey.

    Returns:
        (H, W, channels).

    Raises:
        SampleError: any other pair of numbers.
    """
    have = image.shape[2]
    if have == channels:
        return image
    if have == 4 and (channels == 3 or (convert and channels == 1)):
        image = on_white(image)
        have = 3
    if have == channels:
        return image
    if have == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    if convert and have == 3 and channels == 1:
        grey = image.astype(np.float32) @ _LUMA
        return (np.rint(grey) if image.dtype.kind == "u" else grey).astype(image.dtype)[:, :, None]
    raise SampleError(name, f"{have} channel{'s' if have != 1 else ''} where the source has {channels}")


def on_white(image: np.ndarray) -> np.ndarray:
    """RGBA (H, W, 4) laid on white: c * a + white * (1 - a), as (H, W, 3) of the same type."""
    white = {"uint8": 255.0, "uint16": 65535.0}.get(str(image.dtype), 1.0)
    alpha = image[:, :, 3:].astype(np.float32) / white
    if (alpha == 1).all():
        return np.ascontiguousarray(image[:, :, :3])
    laid = image[:, :, :3].astype(np.float32) * alpha + white * (1 - alpha)
    return (np.rint(laid) if image.dtype.kind == "u" else laid).astype(image.dtype)


def choose_channels(counts: Sequence[int]) -> int:
    """How many channels a source has, from those of some of its files.

    The most frequent number wins. If more than 5 % of the files would then be unreadable, and all are grey, RGB or
    RGBA, the source is RGB instead, because every one of them can be shown in RGB; so RGBA stays only where (nearly)
    all files have it.

    Args:
        counts: channels of each file looked at, at least one.
    """
    found, times = np.unique(np.asarray(counts), return_counts=True)
    best = int(found[np.argmax(times)])
    readable = {best} | ({1, 4} if best == 3 else set())
    lost = sum(int(t) for c, t in zip(found, times, strict=True) if int(c) not in readable)
    if set(found.tolist()) <= {1, 3, 4} and (lost > 0.05 * len(counts) or (best == 4 and lost)):
        return 3
    return best
