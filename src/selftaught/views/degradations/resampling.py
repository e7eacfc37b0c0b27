"""Down- and up-sampling as restoration papers mean them: bicubic with antialiasing, as MATLAB's imresize."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import cv2
import numpy as np

from selftaught.errors import UserError
from selftaught.views._fast import kernels
from selftaught.views.operation import Drawn, Op, executor, freeze

__all__ = ["Downsample", "Upsample", "bicubic"]

_BLOCK = 8
"""Output rows that are made by one matrix product: wide enough for BLAS, narrow enough to touch few input rows."""

_MATRIX = 1 << 22
"""Weights of the largest resizing matrix that is made as one."""

_Pass = tuple[int, tuple[int, ...], tuple[Any, ...]]
"""An axis, the shape of what is made with that axis first, and what the kernel is told besides the pixels."""

_TOGETHER = 4
"""Channels whose rows are resized by one matrix product, most of which is zeros between channels."""


def bicubic(x: Any, scale: float | tuple[float, float] | None = None, *, size: tuple[int, int] | None = None) -> Any:
    """Resize by Keys' cubic kernel (a = -1/2), antialiased when shrinking: MATLAB's ``imresize(x, scale, "bicubic")``.

    An image of side n becomes ceil(scale n). Output pixel i (from 1) lies at u = i / s + (1 - 1 / s) / 2 in the input,
    and is the sum of pixels j weighted by h(u - j), normalised to sum 1. When shrinking, h(d) = s k(s d): the kernel is
    widened by 1 / s. The border is mirrored with its edge repeated. The axis that shrinks more goes first, rows before
    columns; whole-number images are rounded (halves up) and clipped after each axis, as there.

    Args:
        x: (H, W) or (H, W, C) array, or (..., H, W) tensor, of whole or floating numbers. Gradients flow
            through tensors.
        scale: s, one number or (rows, columns): 1/4 shrinks four times, 4 enlarges.
        size: (height, width) to make instead; s is then the ratio of the sides.

    Returns:
        The resized image, in the type that was given. Float images may leave their range a little (the kernel has
        negative lobes).

    Raises:
        UserError: neither scale nor size, or both; not positive; an array of other axes, an empty image.
    """
    tensor = not isinstance(x, np.ndarray)
    if (tensor and x.ndim < 2) or (not tensor and x.ndim not in (2, 3)) or 0 in x.shape:
        raise UserError(f"bicubic: an image is (H, W), (H, W, C) as an array, (..., H, W) as a tensor, got {x.shape}")
    first = x.ndim - 2 if tensor else 0
    return _resized(x, first, *_target((x.shape[first], x.shape[first + 1]), scale, size))


def _target(
    sides: tuple[int, int], scale: float | tuple[float, float] | None, size: tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Size and scale of the output."""
    if (scale is None) == (size is None):
        raise UserError("bicubic: give either scale or size")
    if size is not None:
        out = (int(size[0]), int(size[1]))
        scales = (out[0] / sides[0], out[1] / sides[1])
    else:
        scales = (float(scale), float(scale)) if isinstance(scale, int | float) else (scale[0], scale[1])  # type: ignore[index]
        if not all(math.isfinite(one) and one > 0 for one in scales):
            raise UserError(f"bicubic: scale must be above 0, got {scale!r}")
        out = (_length(sides[0], scales[0]), _length(sides[1], scales[1]))
    if min(out) < 1:
        raise UserError(f"bicubic: size must be 1 or more, got {size!r}")
    return out, scales


@lru_cache(maxsize=256)
def _scaled(sides: tuple[int, int], scale: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """:func:`_target` of one scale, remembered."""
    return _target(sides, scale, None)


def _length(side: int, scale: float) -> int:
    return max(1, math.ceil(side * scale - 1e-9))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2 (Keys 1981, eq. 15)."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@lru_cache(maxsize=256)
def _bands(side: int, out: int, scale: float) -> tuple[tuple[int, np.ndarray], ...]:
    """The resizing matrix (out, side) in blocks of rows: the first input row that a block reads, and its weights."""
    shrink = min(scale, 1.0)
    place = (np.arange(out) + 0.5) / scale - 0.5  # from 0
    reach = math.ceil(4 / shrink) + 2
    taps = np.floor(place - 2 / shrink).astype(np.int64)[:, None] + np.arange(reach)
    weights = _cubic((place[:, None] - taps) * shrink)
    weights /= weights.sum(1, keepdims=True)
    folded = taps % (2 * side)
    folded = np.where(folded >= side, 2 * side - 1 - folded, folded)
    bands = []
    for start in range(0, out, _BLOCK):
        rows, values = folded[start : start + _BLOCK], weights[start : start + _BLOCK]
        used = rows[values != 0]
        low, high = int(used.min()), int(used.max()) + 1
        band = np.zeros((len(rows), high - low))
        at = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)
        np.add.at(band, (at[values != 0], used - low), values[values != 0])
        band.setflags(write=False)
        bands.append((low, band))
    return tuple(bands)


@lru_cache(maxsize=256)
def _axes(sides: tuple[int, int], out: tuple[int, int], scales: tuple[float, float]) -> tuple[int, ...]:
    """The axes that are resized, in their order."""
    order = sorted((0, 1), key=lambda axis: scales[axis])
    return tuple(axis for axis in order if scales[axis] != 1 or out[axis] != sides[axis])


def _resized(x: Any, first: int, out: tuple[int, int], scales: tuple[float, float]) -> Any:
    """Resize axes ``first`` and ``first + 1`` of an array or a tensor."""
    axes = _axes((x.shape[first], x.shape[first + 1]), out, scales)
    if not isinstance(x, np.ndarray):
        for axis in axes:
            x = _along_tensor(x, first + axis, out[axis], scales[axis])
        return x
    if first:
        return np.stack([_resized(frame, first - 1, out, scales) for frame in x])
    return _resized_array(x, axes, out, scales) if axes else x


def _resized_array(
    x: np.ndarray, axes: tuple[int, ...], out: tuple[int, int], scales: tuple[float, float]
) -> np.ndarray:
    """Resize an image (H, W) or (H, W, C) along its axes in turn."""
    levels = x.dtype == np.uint8
    if levels and (compiled := kernels()) is not None and (passes := _passes(x.shape, axes, out, scales)):
        return _resized_levels(x, passes, compiled.resized)
    whole = x.dtype.kind not in "f"
    if whole:  # 8 bits times weights that are exact in float32 at scales of a power of 2 stay exact
        work = np.dtype(np.float32 if x.dtype == np.uint8 else np.float64)
    else:
        work = max(x.dtype, np.dtype(np.float32))
    made = np.ascontiguousarray(x, work)
    for axis in axes:
        made = (_along_columns, _along_rows)[axis](made, out[axis], scales[axis])
        if whole:
            limits = np.iinfo(x.dtype)
            made += 0.5
            np.floor(made, out=made)
            np.clip(made, limits.min, limits.max, out=made)
    return made.astype(x.dtype, copy=False)


def _resized_levels(x: np.ndarray, passes: tuple[_Pass, ...], resized: Callable[..., None]) -> np.ndarray:
    """The same of 8-bit levels, compiled: rows come first in memory, so that columns are turned into rows."""
    done = np.ascontiguousarray(x)
    for axis, shape, told in passes:
        lines: Any = done if axis == 0 else cv2.transpose(done)
        made = np.empty(shape, np.uint8)
        resized(lines.reshape(-1), *told, made.reshape(-1))
        done = made if axis == 0 else cv2.transpose(made)
    return done if done.ndim == x.ndim else done[:, :, None]  # OpenCV drops a last axis of 1


@lru_cache(maxsize=256)
def _passes(
    shape: tuple[int, ...], axes: tuple[int, ...], out: tuple[int, int], scales: tuple[float, float]
) -> tuple[_Pass, ...]:
    """How levels of a shape are resized, compiled; nothing where an axis is too short, or there are many channels."""
    channels, sides, passes = math.prod(shape[2:]), list(shape[:2]), []
    for axis in axes:
        if channels > _TOGETHER or not _few_taps(sides[axis], out[axis], scales[axis]):
            return ()
        other = sides[1 - axis]
        told = (np.uint64(other * channels), *_taps(sides[axis], out[axis], scales[axis]))
        passes.append((axis, (out[axis], other, *shape[2:]), told))
        sides[axis] = out[axis]
    return tuple(passes)


def _few_taps(side: int, out: int, scale: float) -> bool:
    """Whether an axis is longer than what an output reads of it, and its whole matrix takes little memory."""
    return side >= 4 / min(1.0, scale) + 8 and side * out <= _MATRIX


@lru_cache(maxsize=256)
def _taps(side: int, out: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The resizing matrix as what each output begins to read at, (out,), and its weights from there on, (out, T).

    T is a multiple of 4, and no longer than the axis.
    """
    matrix = np.zeros((out, side), np.float32)
    start = 0
    for low, band in _bands(side, out, scale):
        matrix[start : start + len(band), low : low + band.shape[1]] = band
        start += len(band)
    used = matrix != 0
    first, last = used.argmax(1), side - used[:, ::-1].argmax(1)
    most = -(-int((last - first).max()) // 4) * 4
    first = np.minimum(first, side - most)
    return first.astype(np.uint64), np.take_along_axis(matrix, first[:, None] + np.arange(most), 1)


def _along_columns(x: np.ndarray, out: int, scale: float) -> np.ndarray:
    """Resize the first axis: a product with each block of rows."""
    flat = x.reshape(len(x), -1)
    done = np.empty((out, flat.shape[1]), x.dtype)
    start = 0
    for low, band in _bands_of(len(x), out, scale, x.dtype):
        stop = start + len(band)
        np.matmul(band, flat[low : low + band.shape[1]], out=done[start:stop])
        start = stop
    return done.reshape(out, *x.shape[1:])


def _along_rows(x: np.ndarray, out: int, scale: float) -> np.ndarray:
    """Resize the second axis. A few channels go together, so that no axes need to be exchanged."""
    channels = math.prod(x.shape[2:])
    if channels > _TOGETHER:
        made = [_along_rows(x[:, :, at : at + _TOGETHER], out, scale) for at in range(0, channels, _TOGETHER)]
        return np.concatenate(made, 2)
    flat = x.reshape(len(x), -1)
    done = np.empty((len(x), out * channels), x.dtype)
    start = 0
    for low, band in _bands_of(x.shape[1], out, scale, x.dtype, channels):
        stop = start + band.shape[1]
        np.matmul(flat[:, low : low + len(band)], band, out=done[:, start:stop])
        start = stop
    return done.reshape(len(x), out, *x.shape[2:])


@lru_cache(maxsize=256)
def _bands_of(
    side: int, out: int, scale: float, dtype: np.dtype, channels: int = 0
) -> tuple[tuple[int, np.ndarray], ...]:
    """:func:`_bands` in another precision; with channels turned, for values of so many side by side."""
    bands = [(low, band.astype(dtype)) for low, band in _bands(side, out, scale)]
    if not channels:
        return tuple(bands)
    return tuple((low * channels, np.kron(band.T, np.eye(channels, dtype=dtype))) for low, band in bands)


@lru_cache(maxsize=64)
def _bands_on(side: int, out: int, scale: float, device: Any, dtype: Any) -> tuple[tuple[int, Any], ...]:
    """:func:`_bands` as tensors, so that a training step uploads them once."""
    import torch

    with torch.inference_mode(False):  # a tensor made in inference mode could never serve a training step
        return tuple((low, torch.from_numpy(band.copy()).to(device, dtype)) for low, band in _bands(side, out, scale))


def _along_tensor(x: Any, axis: int, out: int, scale: float) -> Any:
    import torch

    whole = not x.is_floating_point()
    if whole:
        work = torch.float32 if x.device.type == "mps" else torch.float64
    else:
        work = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    made = []
    for low, weights in _bands_on(x.shape[axis], out, scale, x.device, work):
        part = x.narrow(axis, low, weights.shape[1]).to(work)
        made.append(part @ weights.T if axis == x.ndim - 1 else weights @ part)
    done = torch.cat(made, axis)
    if whole:
        limits = torch.iinfo(x.dtype)
        done = (done + 0.5).floor().clamp(limits.min, limits.max)
    return done.to(x.dtype)


def _checked_scale(op: str, scale: Any) -> int | float:
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 1 <= scale <= 64:
        raise UserError(f"{op}: scale is how many times, from 1 to 64, got {scale!r}")
    return scale


@dataclasses.dataclass(frozen=True, repr=False)
class Downsample(Op):
    """The image ``scale`` times smaller by :func:`bicubic`: side n becomes ceil(n / scale).

    Args:
        scale: how many times (default 4).
    """

    scale: float = 4

    floats: ClassVar = True

    def __post_init__(self) -> None:
        freeze(self, scale=_checked_scale("Downsample", self.scale))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Nothing is drawn."""
        return (), _sides(height, 1 / self.scale), _sides(width, 1 / self.scale)


@dataclasses.dataclass(frozen=True, repr=False)
class Upsample(Op):
    """The image ``scale`` times larger.

    Args:
        scale: how many times (default 4); a whole number for "nearest".
        method: "bicubic" (default, :func:`bicubic`) or "nearest" (each pixel a square).
    """

    scale: float = 4
    method: str = "bicubic"

    floats: ClassVar = True

    def __post_init__(self) -> None:
        freeze(self, scale=_checked_scale("Upsample", self.scale))
        if self.method not in ("bicubic", "nearest"):
            raise UserError(f"Upsample: method is 'bicubic' or 'nearest', got {self.method!r}")
        if self.method == "nearest" and self.scale != int(self.scale):
            raise UserError(f"Upsample: scale is a whole number for 'nearest', got {self.scale!r}")

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Nothing is drawn."""
        return (), _sides(height, self.scale), _sides(width, self.scale)


def _sides(side: Any, scale: float) -> Any:
    if isinstance(side, np.ndarray):
        return np.maximum(1, np.ceil(side * scale - 1e-9)).astype(np.int64)
    return _length(side, scale)


@executor(Downsample, "image", "clip", "volume")
@executor(Upsample, "image", "clip", "volume")
@executor(Downsample, "image", "clip", "volume", device=True)
@executor(Upsample, "image", "clip", "volume", device=True)
def _resample(x: Any, op: Downsample | Upsample, values: Any) -> Any:
    first = x.ndim - 3 if isinstance(x, np.ndarray) else x.ndim - 2
    scale = 1 / op.scale if isinstance(op, Downsample) else float(op.scale)
    if isinstance(op, Upsample) and op.method == "nearest":
        for axis in (first, first + 1):
            x = x.repeat(int(op.scale), axis) if isinstance(x, np.ndarray) else x.repeat_interleave(int(op.scale), axis)
        return x
    return _resized(x, first, *_scaled((x.shape[first], x.shape[first + 1]), scale))
