"""The whole-number arithmetic that both executors share, so that one set of parameters means the same pixels.

Colour factors are multiples of 1/1024, blur weights multiples of 1/256, bilinear weights multiples of 1/2048. Sums
of such products are exact in int32 and float32, on every device, and follow the fixed-point steps of OpenCV's SIMD
kernels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

__all__: list[str] = []  # reached as views.arithmetic.NAME

FRACTION = 1024
"""Colour factors and offsets are rounded to multiples of 1/FRACTION."""

LUMA = (9798, 19235, 3735)
"""Rec. 601 weights of R, G and B (0.299, 0.587, 0.114) in 32768ths."""

REDUCE_FROM = 0.25
"""A crop is halved once more when log2(crop / output) plus this reaches a whole number: from 1.68 times on."""

SIGMA_STEPS = 64
"""Blur sigmas are rounded to multiples of 1/SIGMA_STEPS pixel."""


def pair(value: Any) -> tuple[Any, Any]:
    """The two numbers of a pair; one number stands for both."""
    return (value[0], value[1]) if isinstance(value, tuple) else (value, value)


def quantise(factor: Any) -> Any:
    """The nearest multiple of 1/1024 (halves to even)."""
    if isinstance(factor, float):
        return round(factor * FRACTION) / FRACTION
    return np.rint(np.asarray(factor, np.float64) * FRACTION) / FRACTION


def quantise_hue(shift: Any) -> Any:
    """The nearest odd multiple of 1/2048 turn.

    Odd, because then no product with a chroma below 256 ends on half a grey level, and rounding never hangs on the
    last digit of a float.
    """
    if isinstance(shift, float):
        return (2 * math.floor(shift * FRACTION) + 1) / (2 * FRACTION)
    return (2 * np.floor(np.asarray(shift, np.float64) * FRACTION) + 1) / (2 * FRACTION)


def reduction_level(height: int, width: int, out_height: int, out_width: int) -> int:
    """How many times a crop is halved by 2x2 averages before bilinear resizing.

    From the geometric mean g of the two reductions: floor(log2 g + 1/4), at least 0 and never down to nothing.
    """
    reduction = height * width / (out_height * out_width)
    if reduction < 2:
        return 0
    return min(math.floor(0.5 * math.log2(reduction) + REDUCE_FROM), min(height, width).bit_length() - 1)


def snap(box: tuple[Any, ...], size: tuple[Any, Any]) -> tuple[Any, ...]:
    """Move a box to the grid of 2**level pixels on which crops are halved.

    Args:
        box: top, left, height, width: whole numbers, or arrays of them.
        size: the output's height and width.

    Returns:
        top, left, height, width, level. The box stays inside where it was, up to 2**level - 1 pixels at its corners.
    """
    (top, left, height, width), (out_height, out_width) = box, size
    if not isinstance(height, np.ndarray):
        level = reduction_level(height, width, out_height, out_width)
        if level == 0:
            return top, left, height, width, 0
        return (*(side >> level << level for side in (top, left, height, width)), level)
    reduction = np.maximum(1.0, height * width / (np.asarray(out_height) * out_width))
    halvings = np.floor(0.5 * np.log2(reduction) + REDUCE_FROM)
    halvings = np.where(reduction < 2, 0, np.minimum(halvings, np.floor(np.log2(np.minimum(height, width)))))
    grid = 2.0**halvings
    return (*(np.floor(side / grid) * grid for side in (top, left, height, width)), halvings)


def resize_places(size: np.ndarray, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear neighbours along one axis, half-pixel centres, clamped at the box's edges.

    Args:
        size: (N,) lengths of the boxes, in pixels.
        out: length of the output.

    Returns:
        near, far: (N, out) int64 positions inside the box. part: (N, out) float32, the far one's weight.
    """
    size = np.asarray(size, np.float64)[:, None]
    place = ((np.arange(out) + 0.5) * (1.0 / (out / size)) - 0.5).astype(np.float32)
    near = np.floor(place)
    last = size - 1
    return np.clip(near, 0, last).astype(np.int64), np.clip(near + 1, 0, last).astype(np.int64), place - near


def resize_table(size: np.ndarray, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """:func:`resize_places` with the weights of 8-bit images.

    Returns:
        near, far: (N, out) int64 positions inside the box. near_weight, far_weight: (N, out) int32 in 2048ths.
    """
    near, far, part = resize_places(size, out)
    far_weight = np.rint(part * np.float32(2048)).astype(np.int32)
    near_weight = np.rint((np.float32(1) - part) * np.float32(2048)).astype(np.int32)
    return near, far, near_weight, far_weight


def nearest_places(size: Any, out: int) -> np.ndarray:
    """The pixel whose area each output pixel's centre lies in, along one axis: floor((i + 1/2) size / out).

    Args:
        size: one length in pixels, or (N, 1) of them.
        out: length of the output.

    Returns:
        (out,) or (N, out) int64.
    """
    return (2 * np.arange(out, dtype=np.int64) + 1) * np.asarray(size, np.int64) // (2 * out)


def saturation_matrix(factor: Any) -> np.ndarray:
    """The 3x3 matrix, in 1024ths, that blends RGB with its luma: factor * I + (1 - factor) * 1 luma^T.

    Args:
        factor: one number or an (N,) array. Rows sum to exactly 1024, so greys stay greys.

    Returns:
        (3, 3) or (N, 3, 3) int64.
    """
    whole = np.rint(np.asarray(factor, np.float64) * FRACTION).astype(np.int64)
    rest = FRACTION - whole
    red, blue = (np.rint(rest * (LUMA[c] / 32768)).astype(np.int64) for c in (0, 2))
    weights = np.stack([red, rest - red - blue, blue], axis=-1)
    return np.eye(3, dtype=np.int64) * whole[..., None, None] + weights[..., None, :]


@lru_cache(maxsize=40_000)
def _saturation_matrix_of(whole: int) -> np.ndarray:
    matrix = (saturation_matrix(whole / FRACTION) / FRACTION).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def saturation_matrix_of(factor: float) -> np.ndarray:
    """:func:`saturation_matrix` of one factor, divided by 1024: (3, 3) float32, read-only, remembered."""
    return _saturation_matrix_of(round(factor * FRACTION))


def blur_radius(sigma: float, kernel_size: int | None) -> int:
    """Half the kernel's width: 3 sigma, at least 1, at most what ``kernel_size`` allows."""
    radius = max(1, math.ceil(3 * sigma))
    return radius if kernel_size is None else min(radius, kernel_size // 2)


@lru_cache(maxsize=4096)
def _weights(step: int, kernel_size: int | None) -> np.ndarray:
    weights = (_taps(step, kernel_size) / 256).astype(np.float32)
    weights.setflags(write=False)
    return weights


def blur_weights(sigma: float, kernel_size: int | None = None) -> np.ndarray:
    """:func:`blur_taps` divided by 256: float32, read-only, remembered."""
    return _weights(round(sigma * SIGMA_STEPS), kernel_size)


@lru_cache(maxsize=4096)
def _taps(step: int, kernel_size: int | None) -> np.ndarray:
    sigma = max(step, 1) / SIGMA_STEPS
    radius = blur_radius(sigma, kernel_size)
    weights = np.exp(-(np.arange(radius, -1, -1) ** 2) / (2 * sigma * sigma))
    weights /= weights.sum() * 2 - weights[-1]
    # Rounding the running sum from the tail inwards keeps wide kernels true; the centre takes what is left of 256.
    tail = np.diff(np.rint(np.cumsum(weights[:-1]) * 256), prepend=0.0)
    taps = np.concatenate([tail, [256 - 2 * tail.sum()], tail[::-1]]).astype(np.int64)
    taps.setflags(write=False)
    return taps


def blur_taps(sigma: float, kernel_size: int | None = None) -> np.ndarray:
    """Gaussian weights in 256ths, symmetric, summing to exactly 256; (2 * radius + 1,) int64, read-only."""
    return _taps(round(sigma * SIGMA_STEPS), kernel_size)
