"""Degradations of one picture on a CPU, compiled by Numba: each is one pass where NumPy takes many.

They make the same pixels as the forms beside them, up to rounding. Numba takes a moment to be imported, and only an
extra brings it: :func:`selftaught.views.degradations._fast.kernels` imports this module where it can.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught._compiling import compiled, fitted

__all__ = ["noisy", "normals", "shrunk"]

Array = NDArray[Any]
_BLOCK = 2048
"""Numbers that are worked on at a time: they stay in the nearest cache."""


_quarter = np.pi / 2
_l0, _l1, _l2, _l3, _l4, _l5, _l6, _l7, _l8 = fitted(lambda f: np.log1p(f) / f, 0.5**0.5 - 1, 2**0.5 - 1, 8)
_s0, _s1, _s2, _s3, _s4, _s5 = fitted(lambda x: np.sin(np.sqrt(x)) / np.sqrt(x), 0, _quarter**2, 5)
_c0, _c1, _c2, _c3, _c4, _c5 = fitted(lambda x: np.cos(np.sqrt(x)), 0, _quarter**2, 5)
"""ln(1 + f) / f; sin(x) / x and cos(x) of x^2 up to a quarter turn."""
_one, _half, _none, _most = np.float32(1), np.float32(0.5), np.float32(0), np.float32(255)
_ln2, _root2, _unit, _turn = (np.float32(n) for n in (np.log(2), 2**0.5, 2**-24, _quarter * 2**-22))
_first, _second, _mantissa, _bias = (np.uint32(n) for n in (0x85EBCA6B, 0xC2B2AE35, 0x7FFFFF, 127 << 23))


# ---- noise -----------------------------------------------------------------------------------------------------------
@compiled
def _mixed(x: Any) -> Any:
    """Murmur's finaliser; what isn't cast would become 64 bits wide."""
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(16))) * _first)
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(13))) * _second)
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@compiled
def _word(place: Any, low: Any, high: Any) -> Any:
    """24 bits of a place's hash."""
    return np.int32(_mixed(np.uint32(_mixed(np.uint32(np.uint32(place) ^ low)) + high)) >> np.uint32(8))


@compiled
def normals(low: Any, high: Any, out: Array) -> None:
    """Box and Muller's pairs of hashed places: the i-th and the (half + i)-th number; ``out`` has an even length."""
    half = out.shape[0] // 2
    for start in range(0, half, _BLOCK):
        count = min(_BLOCK, half - start)
        cosines, sines = out[start : start + count], out[half + start : half + start + count]
        for k in range(count):
            bits = np.float32((np.float32(_word(start + k, low, high)) + _one) * _unit).view(np.uint32)
            power = np.float32(np.int32(bits >> np.uint32(23)) - np.int32(127))
            m = np.uint32((bits & _mantissa) | _bias).view(np.float32)
            upper = m > _root2
            m = m * _half if upper else m
            power = power + _one if upper else power
            f = m - _one
            series = _l4 + f * (_l5 + f * (_l6 + f * (_l7 + f * _l8)))
            log = f * (_l0 + f * (_l1 + f * (_l2 + f * (_l3 + f * series)))) + power * _ln2
            cosines[k] = np.sqrt(np.float32(-2) * log)
        for k in range(count):
            word = _word(half + start + k, low, high)
            quarter = np.int32(word >> np.int32(22))
            x = np.float32(word & np.int32(0x3FFFFF)) * _turn
            s = x * x
            sine = x * (_s0 + s * (_s1 + s * (_s2 + s * (_s3 + s * (_s4 + s * _s5)))))
            cosine = _c0 + s * (_c1 + s * (_c2 + s * (_c3 + s * (_c4 + s * _c5))))
            odd = (quarter & 1) == 1
            across, up = (sine, cosine) if odd else (cosine, sine)
            radius = cosines[k]
            cosines[k] = -radius * across if quarter == 1 or quarter == 2 else radius * across
            sines[k] = -radius * up if quarter >= 2 else radius * up


@compiled
def noisy(x: Array, field: Array, sigma: Any, out: Array) -> None:
    """8-bit levels and noise, rounded and clipped."""
    for k in range(x.shape[0]):
        level = np.rint(np.float32(x[k]) + sigma * field[k])
        level = level if level > _none else _none
        out[k] = np.uint8(level if level < _most else _most)


# ---- filters ---------------------------------------------------------------------------------------------------------
@compiled
def _level(x: Any) -> Any:
    """Rounded half up and clipped to 8 bits."""
    x = np.floor(x + _half)
    x = x if x > _none else _none
    return x if x < _most else _most


@compiled
def shrunk(
    x: Array, size: Any, rows: Array, row_weights: Array, columns: Array, column_weights: Array, out: Array
) -> None:
    """A picture of 8-bit levels resized to (h, w), rows first; rounded and clipped after each axis.

    Sides and places are unsigned, so that no index is looked at for its sign.

    Args:
        x: its levels (H, W, C) in one row.
        size: W and C, uint64.
        rows: (h,) uint64, the first row that an output reads.
        row_weights: (h, T), those of T rows; T is a multiple of 4.
        columns: (w,) likewise.
        column_weights: likewise.
        out: (h, w, C) in one row.
    """
    width, channels = size
    lines, places = np.uint64(rows.shape[0]), np.uint64(columns.shape[0])
    count = width * channels
    total = np.empty(count, np.float32)
    turned = np.empty(count * lines, np.float32)
    for i in range(lines):
        total[:] = _none
        for t in range(0, row_weights.shape[1], 4):
            a, b, c, d = row_weights[i, t], row_weights[i, t + 1], row_weights[i, t + 2], row_weights[i, t + 3]
            one = (rows[i] + np.uint64(t)) * count
            two, three, four = one + count, one + count + count, one + count + count + count
            for k in range(count):
                near = a * np.float32(x[one + k]) + b * np.float32(x[two + k])
                total[k] += near + (c * np.float32(x[three + k]) + d * np.float32(x[four + k]))
        for k in range(count):
            total[k] = _level(total[k])
        for k in range(count):
            turned[k * lines + i] = total[k]
    line = np.empty(lines, np.float32)
    for j in range(places):
        for c in range(channels):
            line[:] = _none
            start = (columns[j] * channels + c) * lines
            for t in range(column_weights.shape[1]):
                weight = column_weights[j, t]
                for i in range(lines):
                    line[i] += weight * turned[start + i]
                start += channels * lines
            for i in range(lines):
                out[(i * places + j) * channels + c] = np.uint8(_level(line[i]))
