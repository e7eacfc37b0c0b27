"""What the operations of :mod:`selftaught.views.spec` do to the pixels of one sample, in OpenCV's SIMD kernels.

Passes over the pixels: one crop-resize straight from the decoded image (the crop is a window, not a copy); brightness
and contrast one each, because each clamps to 0..255 before the next; saturation one 3x3 matrix; hue by the HSV hexcone
in float32; grey two; blur a separable fixed-point filter, only where drawn; solarise two.

How this differs from torchvision (v2 functional, uint8 tensors, the same parameters), measured on photographs and held
by tests/views/test_against_torchvision.py: torchvision drops the fraction after each step where we round to the
nearest, and rounds the grey image before it blends. In grey levels at most: brightness, contrast, grey and hue 1,
saturation 2, blur with an equal kernel 2 (0.1 in the mean), solarise 0, enlarging 1. Shrinking averages 2x2 blocks and
then interpolates where torchvision widens its triangle filter: 31 to 43 dB alike at 2 to 5 times (21 to 35 dB without
averaging). The order of the four colour steps is random in both, unless ours is told one.
On PIL images torchvision's hue has 8 bits, and lies up to 8 levels off (1 in the mean); PIL's blur is three box filters
and repeats the edge, 0.6 levels off in the mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from selftaught.errors import UserError
from selftaught.views import arithmetic
from selftaught.views._fast import kernels
from selftaught.views.operation import FRAMED, executor
from selftaught.views.spec import (
    ORDERS,
    CenterCrop,
    ColorJitter,
    Dihedral,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Solarize,
)

CHANNEL_LIMIT = 128
"""More channels than OpenCV takes at once are worked through in groups of this many."""

_HUE_PIXELS = 1 << 14
"""Of a large image so many at a time, which stay in the cache as floats."""

_NEAR = 1 << 19
"""Bytes of the largest window that is copied to a place of its own first; more would not stay in the cache."""

_FAR = 1 << 14
"""Bytes of a window from which on a compiled copy pays."""

_scratch = threading.local()


def _grouped(function: Callable[..., np.ndarray], x: np.ndarray, *args: Any) -> np.ndarray:
    """``function(x, *args)``, which acts on each channel alone, for any number of channels."""
    if x.shape[2] <= CHANNEL_LIMIT:
        return function(x, *args)
    channels = x.shape[2]
    groups = [np.ascontiguousarray(x[:, :, at : at + CHANNEL_LIMIT]) for at in range(0, channels, CHANNEL_LIMIT)]
    done = [function(group, *args) for group in groups]
    return np.concatenate([group if group.ndim == 3 else group[:, :, None] for group in done], axis=2)


def _window(x: np.ndarray, box: list[float]) -> np.ndarray:
    """The window (top, left, height, width) of an image, without a copy."""
    y0, x0, h, w = map(int, box)
    if min(y0, x0) < 0 or min(h, w) < 1 or y0 + h > x.shape[0] or x0 + w > x.shape[1]:
        raise UserError(
            f"views: crop {h}x{w} at ({y0}, {x0}) leaves the {x.shape[0]}x{x.shape[1]} image; sample for its own size"
        )
    return x[y0 : y0 + h, x0 : x0 + w]


def _shrink_resize(x: np.ndarray, level: int, height: int, width: int) -> np.ndarray:
    for _ in range(level):
        half = (x.shape[1] // 2, x.shape[0] // 2)
        x = cv2.resize(x, half, interpolation=cv2.INTER_AREA)
    return x if x.shape[:2] == (height, width) else cv2.resize(x, (width, height), interpolation=cv2.INTER_LINEAR)


@executor(RandomResizedCrop, "image")
@executor(Resize, "image")
def _resize(x: np.ndarray, op: RandomResizedCrop | Resize, values: list[float]) -> np.ndarray:
    box = _window(x, values[:4])
    return _grouped(_shrink_resize, box, int(values[4]), *op.target(*x.shape[:2]))


@executor(RandomResizedCrop, "mask", "depth")
@executor(Resize, "mask", "depth")
def _nearest(x: np.ndarray, op: RandomResizedCrop | Resize, values: list[float]) -> np.ndarray:
    height, width = op.target(*x.shape)
    box = _window(x, values[:4])
    rows, columns = arithmetic.nearest_places(box.shape[0], height), arithmetic.nearest_places(box.shape[1], width)
    return box[rows[:, None], columns]


@executor(RandomCrop, "image")
@executor(CenterCrop, "image")
def _crop(x: np.ndarray, op: RandomCrop | CenterCrop, values: list[float]) -> np.ndarray:
    return _window(x, [*values, *arithmetic.pair(op.size)])


def _near(x: np.ndarray) -> np.ndarray:
    """A window of 8 bits as one block in memory that the last one has just left in the cache; whole images as they are.

    What reads it backwards or across takes two thirds of the time so, where the large picture is not in the cache. The
    block is this thread's own and serves the next window, too: nothing may keep it.
    """
    if x.flags.c_contiguous:
        return x
    if x.size > _NEAR:
        return np.ascontiguousarray(x)
    room = getattr(_scratch, "window", None)
    if room is None:
        room = _scratch.window = np.empty(_NEAR, np.uint8)
    near = room[: x.size].reshape(x.shape)
    compiled = kernels("_windows") if x.size >= _FAR else None
    if compiled is None:
        np.copyto(near, x)
    else:
        compiled.copied(x.reshape(len(x), -1), near.reshape(len(x), -1))
    return near


@executor(HorizontalFlip, "image")
def _flip(x: np.ndarray, op: HorizontalFlip, values: list[float]) -> np.ndarray:
    if not values[0]:
        return x
    if x.dtype == np.uint8 and x.shape[2] <= CHANNEL_LIMIT:
        return cv2.flip(_near(x), 1)
    return x[:, ::-1]


@executor(Dihedral, "image")
def _dihedral(x: np.ndarray, op: Dihedral, values: list[float]) -> np.ndarray:
    code = int(values[0])
    if code and x.dtype == np.uint8 and x.shape[2] <= 4:
        return _TURNS[code - 1](_near(x))
    x = np.rot90(x, code % 4)
    return x[:, ::-1] if code >= 4 else x


def _turned_round(x: np.ndarray) -> np.ndarray:
    """In place by half a turn."""
    return cv2.flip(x, -1, dst=x)


_TURNS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda x: cv2.rotate(x, cv2.ROTATE_90_COUNTERCLOCKWISE),
    lambda x: cv2.rotate(x, cv2.ROTATE_180),
    lambda x: cv2.rotate(x, cv2.ROTATE_90_CLOCKWISE),
    lambda x: cv2.flip(x, 1),
    lambda x: _turned_round(cv2.transpose(x)),
    lambda x: cv2.flip(x, 0),
    cv2.transpose,
)
"""A picture turned counter-clockwise by 1 to 3 quarters, then from 4 on by ``code - 4`` and mirrored."""


def _flat(x: np.ndarray) -> np.ndarray:
    """What OpenCV takes at once: as it is, or beyond its limit with all channels side by side as one."""
    return x if x.shape[2] <= CHANNEL_LIMIT else np.ascontiguousarray(x).reshape(x.shape[0], -1)


def _shaped(result: np.ndarray, x: np.ndarray) -> np.ndarray:
    return result if result.shape == x.shape else result.reshape(x.shape)


def _channel_mean(x: np.ndarray) -> np.ndarray:
    """The mean of all channels, rounded half up; (H, W) uint8."""
    channels = x.shape[2]
    rows = np.ascontiguousarray(x).reshape(-1, channels)
    total = (
        cv2.reduce(rows, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S) if channels <= CHANNEL_LIMIT else rows.sum(1, np.int32)
    )
    return ((2 * total + channels) // (2 * channels)).astype(np.uint8).reshape(x.shape[:2])


def _grey_level(x: np.ndarray) -> float:
    """The mean over all pixels of luma (3 channels) or of the channels' mean."""
    if x.shape[2] == 3:
        red, green, blue, _ = cv2.mean(x)
        return (arithmetic.LUMA[0] * red + arithmetic.LUMA[1] * green + arithmetic.LUMA[2] * blue) / 32768
    return cv2.mean(np.ascontiguousarray(x).reshape(x.shape[0], -1))[0]


def _brightness(x: np.ndarray, factor: float) -> np.ndarray:
    return _shaped(cv2.convertScaleAbs(_flat(x), alpha=arithmetic.quantise(factor)), x)


def _contrast(x: np.ndarray, factor: float) -> np.ndarray:
    scale = arithmetic.quantise(factor)
    offset = arithmetic.quantise((1 - scale) * _grey_level(x))
    flat = _flat(x)
    return _shaped(cv2.addWeighted(flat, scale, flat, 0.0, offset), x)


def _saturation(x: np.ndarray, factor: float) -> np.ndarray:
    channels = x.shape[2]
    if channels == 1:
        return x
    if channels == 3:
        return cv2.transform(x, arithmetic.saturation_matrix_of(factor))
    scale = arithmetic.quantise(factor)
    grey = _flat(np.repeat(_channel_mean(x)[:, :, None], channels, axis=2))
    return cv2.addWeighted(_flat(x), scale, grey, 1 - scale, 0.0).reshape(x.shape)


def _buffers(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Two float32 arrays of this thread that the next call may overwrite."""
    had = getattr(_scratch, "shape", (0,))
    if had[1:] != shape[1:] or had[0] < shape[0]:
        _scratch.shape, _scratch.pair = shape, (np.empty(shape, np.float32), np.empty(shape, np.float32))
    first, second = _scratch.pair
    return first[: shape[0]], second[: shape[0]]


def _hue(x: np.ndarray, shift: float) -> np.ndarray:
    if x.shape[2] != 3:
        return x
    degrees = np.float32(arithmetic.quantise_hue(shift) * 360 % 360)
    rows = max(_HUE_PIXELS // x.shape[1], 1)
    if len(x) <= rows:
        return _turned(x, degrees)
    out = np.empty_like(x)
    for top in range(0, len(x), rows):
        out[top : top + rows] = _turned(x[top : top + rows], degrees)
    return out


def _turned(x: np.ndarray, degrees: np.float32) -> np.ndarray:
    rgb, hsv = _buffers(x.shape)
    np.copyto(rgb, x)
    cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV, dst=hsv)
    angle = hsv[:, :, 0]
    np.add(angle, degrees, out=angle)
    cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=rgb)
    return cv2.convertScaleAbs(rgb)


_COLOURS: dict[str, tuple[int, Callable[[np.ndarray, float], np.ndarray], float]] = {
    "b": (1, _brightness, 1.0),
    "c": (2, _contrast, 1.0),
    "s": (3, _saturation, 1.0),
    "h": (4, _hue, 0.0),
}


@executor(ColorJitter, "image")
def _color_jitter(x: np.ndarray, op: ColorJitter, values: list[float]) -> np.ndarray:
    if not values[0]:
        return x
    for letter in ORDERS[int(values[5])]:
        column, change, neutral = _COLOURS[letter]
        if values[column] != neutral:
            x = change(x, values[column])
    return x


@executor(Grayscale, "image")
def _grayscale(x: np.ndarray, op: Grayscale, values: list[float]) -> np.ndarray:
    if not values[0] or x.shape[2] == 1:
        return x
    if x.shape[2] == 3:
        return cv2.cvtColor(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.repeat(_channel_mean(x)[:, :, None], x.shape[2], axis=2)


@executor(GaussianBlur, "image")
def _blur(x: np.ndarray, op: GaussianBlur, values: list[float]) -> np.ndarray:
    if not values[0]:
        return x
    taps = arithmetic.blur_weights(values[1], op.kernel_size)
    if len(taps) == 3 and taps[1] == 1:
        return x
    return _grouped(cv2.sepFilter2D, x, -1, taps, taps)


@executor(Solarize, "image")
def _solarize(x: np.ndarray, op: Solarize, values: list[float]) -> np.ndarray:
    if not values[0]:
        return x
    flat = _flat(x)
    if op.threshold == 128:
        return _shaped(cv2.min(flat, cv2.bitwise_not(flat)), x)
    level = np.arange(256, dtype=np.uint8)
    return cv2.LUT(flat, np.where(level >= op.threshold, 255 - level, level).astype(np.uint8)).reshape(x.shape)


def _tall(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """What looks at no row above or below does all frames at once, as one tall image."""

    def framed(x: np.ndarray, op: Any, values: list[float]) -> np.ndarray:
        if not values[0]:
            return x
        return function(x.reshape(-1, *x.shape[2:]), op, values).reshape(x.shape)

    return framed


for _kind in FRAMED:
    executor(HorizontalFlip, _kind)(_tall(_flip))
    executor(Grayscale, _kind)(_tall(_grayscale))
    executor(Solarize, _kind)(_tall(_solarize))
