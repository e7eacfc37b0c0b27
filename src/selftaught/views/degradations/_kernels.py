"""Degradations of one picture on a CPU, compiled by Numba: each is one pass where NumPy takes many.

They make the same pixels as the forms beside them, up to rounding. Numba takes a moment to be imported, and only an
extra brings it: :func:`selftaught.views._fast.kernels` imports this module where it can.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught._compiling import compiled, fitted

__all__ = ["noised", "noisy", "normals", "resized"]

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


@compiled
def noised(x: Array, low: Any, high: Any, sigma: Any, out: Array) -> None:
    """8-bit levels and white noise, rounded and clipped: the numbers of :func:`normals`."""
    field = np.empty(x.shape[0] + x.shape[0] % 2, np.float32)
    normals(low, high, field)
    noisy(x, field, sigma, out)


# ---- filters ---------------------------------------------------------------------------------------------------------
@compiled
def _level(x: Any) -> Any:
    """Rounded half up and clipped to 8 bits."""
    x = np.floor(x + _half)
    x = x if x > _none else _none
    return x if x < _most else _most


@compiled
def _sum(a: Any, b: Any) -> Any:
    """The sum of two levels as a float; it fits into 16 bits."""
    return np.float32(np.uint16(np.uint16(a) + np.uint16(b)))


@compiled
def _even(weights: Array) -> bool:
    """Whether weights are the same read from either end; eight of them, or 16..."""
    taps = weights.shape[0]
    for t in range(taps // 2):
        if weights[t] != weights[taps - 1 - t]:
            return False
    return taps % 8 == 0


@compiled
def resized(x: Array, count: Any, first: Array, weights: Array, out: Array) -> None:
    """Rows of 8-bit levels resized along the first axis, then rounded and clipped.

    Rows of equal weight are added as whole numbers first, which halves what becomes a float. Sides and places are
    unsigned, so that no index is looked at for its sign.

    Args:
        x: (H, count) levels in one row.
        count: levels of a row, uint64.
        first: (h,) uint64, the first row that an output reads.
        weights: (h, T) float32, those of T rows from there on; T is a multiple of 4.
        out: (h, count) in one row.
    """
    lines, taps = np.uint64(first.shape[0]), np.uint64(weights.shape[1])
    one, four, two = np.uint64(1), np.uint64(4), count + count
    total = np.empty(count, np.float32)
    for i in range(lines):
        even = _even(weights[i])
        total[:] = _none
        for t in range(np.uint64(0), taps // np.uint64(2) if even else taps, four):
            a, b, c, d = weights[i, t], weights[i, t + one], weights[i, t + one + one], weights[i, t + four - one]
            x0 = (first[i] + t) * count
            x1, x2, x3 = x0 + count, x0 + two, x0 + two + count
            if even:
                y0 = (first[i] + taps - one - t) * count
                y1, y2, y3 = y0 - count, y0 - two, y0 - two - count
                for k in range(count):
                    near = a * _sum(x[x0 + k], x[y0 + k]) + b * _sum(x[x1 + k], x[y1 + k])
                    total[k] += near + (c * _sum(x[x2 + k], x[y2 + k]) + d * _sum(x[x3 + k], x[y3 + k]))
            else:
                for k in range(count):
                    near = a * np.float32(x[x0 + k]) + b * np.float32(x[x1 + k])
                    total[k] += near + (c * np.float32(x[x2 + k]) + d * np.float32(x[x3 + k]))
        for k in range(count):
            out[i * count + k] = np.uint8(_level(total[k]))
