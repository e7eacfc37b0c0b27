"""Pixels of any type and any number of channels: where the channels lie, how many there are, what alpha does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from selftaught._words import plural
from selftaught.errors import SampleError

Layout = Literal["hwc", "guess", "pages"]

TOP = {"uint8": 255.0, "uint16": 65535.0}
"""Largest value of a type; that of floats is 1."""
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def inverted(image: np.ndarray, bits: int) -> np.ndarray:
    """An image where 0 stands for white as one where it stands for black; floats, which have no white, stay."""
    if image.dtype == bool:
        return ~image
    return (2**bits - 1 - image).astype(image.dtype) if image.dtype.kind == "u" else image


def not_premultiplied(image: np.ndarray) -> np.ndarray:
    """RGBA (or grey and alpha) whose colours were multiplied by alpha: c = c' / a, clipped to what the type can hold;
    0 where a is 0.
    """
    top = TOP.get(str(image.dtype), 1.0)
    alpha = image[..., -1:].astype(np.float64) / top
    colour = np.divide(image[..., :-1], alpha, out=np.zeros(image[..., :-1].shape), where=alpha > 0)
    colour = np.clip(np.rint(colour), 0, top) if image.dtype.kind == "u" else colour
    return np.concatenate([colour.astype(image.dtype), image[..., -1:]], axis=-1)


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
    elif image.dtype.newbyteorder("=") == np.uint16:
        image = image.astype(np.uint16)  # of either byte order
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
    raise SampleError(name, f"{plural(have, 'channel')} where the source has {channels}")


def refuse_band(image: np.ndarray, name: str) -> None:
    """Say that a fourth channel can't be taken for transparency.

    Raises:
        SampleError: the image has four channels.
    """
    if image.shape[2] == 4:
        raise SampleError(name, "a fourth channel that is not marked as transparency")


def on_white(image: np.ndarray) -> np.ndarray:
    """RGBA (H, W, 4) laid on white: c * a + white * (1 - a), as (H, W, 3) of the same type."""
    white = TOP.get(str(image.dtype), 1.0)
    alpha = image[:, :, 3:].astype(np.float32) / white
    if (alpha == 1).all():
        return np.ascontiguousarray(image[:, :, :3])
    laid = image[:, :, :3].astype(np.float32) * alpha + white * (1 - alpha)
    return (np.rint(laid) if image.dtype.kind == "u" else laid).astype(image.dtype)


def choose_channels(counts: Sequence[int], bands: bool = False) -> int:
    """How many channels a source has, from those of some of its files.

    The most frequent number wins. If more than 5 % of the files would then be unreadable, and all are grey, RGB or
    RGBA, the source is RGB instead, because every one of them can be shown in RGB; so RGBA stays only where (nearly)
    all files have it.

    Args:
        counts: channels of each file looked at, at least one.
        bands: whether the fourth of four channels is a band like the others, which can't be shown in RGB.
    """
    found, times = np.unique(np.asarray(counts), return_counts=True)
    best = int(found[np.argmax(times)])
    shown = {1, 3} if bands else {1, 3, 4}
    readable = {best} | (shown if best == 3 else set())
    lost = sum(int(t) for c, t in zip(found, times, strict=True) if int(c) not in readable)
    if set(found.tolist()) <= shown and (lost > 0.05 * len(counts) or (best == 4 and lost)):
        return 3
    return best
