"""Kernels in float32 that list Gaussians tile by tile and blend them; :mod:`selftaught.networks._splat_fast` runs them.

The equations are those of :mod:`selftaught.networks.gaussians` and :mod:`selftaught.networks.splatting`, each pass
written out: what a tile's pixels need stays in the nearest cache, and nothing per Gaussian and pixel goes to memory.
The way back computes alpha once more, from back to front, and gets the light before a Gaussian from the light behind
it, as 3DGS does. Loops over pixels are written so that the compiler takes eight at once: one array of rows, one index.

Numba takes a moment to be imported, and only an extra brings it: import this module only where a kernel runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught._compiling import compiled, fitted
from selftaught.networks._splat_tiles import HIGHEST, LOWEST

__all__ = ["AT_ONCE", "HIGH", "WIDE", "blended", "blended_back", "listed"]

WIDE, HIGH = 8, 16
"""Sides of a tile: a row is a register of pixels; of a Gaussian's tile only the rows that it touches are looked at."""
AT_ONCE = 4
"""How many features are blended at once: colours and depth."""
_PIXELS = WIDE * HIGH
_X, _Y, _LIGHT, _STOP, _BEHIND = range(AT_ONCE, AT_ONCE + 5)
"""Rows of a tile's scratch after those of the features. No light comes through from a place in the list on, `_STOP`."""

_one, _none = np.float32(1), np.float32(0)
_number = np.uint64(2**32 - 1)
_lowest, _highest, _full = np.float32(LOWEST), np.float32(HIGHEST), np.float32(HIGHEST - 1e-6)
_dark = np.float32(1e-30)
"""Where less light would be left nothing more is seen: numbers too small to be normal are slow."""
_never = np.float32(1e9)
_faded, _to_2 = np.float32(-9.0), np.float32(1 / np.log(2))
_p0, _p1, _p2, _p3, _p4, _p5, _p6 = fitted(lambda f: 2**f, 0, 1, 6)
"""2^f of f in [0, 1) within 2e-8."""

Array = NDArray[Any]


# ---- compiled ----------------------------------------------------------------------------------------
@compiled
def _exponent(table: Array, g: Any, left: int, top: int) -> Any:
    """Where a Gaussian lies in a tile, x and y, and a, b, c, d of log2 alpha = a dx^2 + b dx dy + c dy^2 + d."""
    half = np.float32(-0.5) * _to_2
    x, y = table[g, 0] - np.float32(left), table[g, 1] - np.float32(top)
    return x, y, half * table[g, 2], -_to_2 * table[g, 3], half * table[g, 4], _to_2 * table[g, 5]


@compiled
def _alpha(power: Any) -> Any:
    """2^power, at most the highest, and none below the least."""
    power = _faded if power < _faded else power
    whole = np.floor(power)
    f = power - whole
    found = _p0 + f * (_p1 + f * (_p2 + f * (_p3 + f * (_p4 + f * (_p5 + f * _p6)))))
    found *= np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)  # 2^whole by its bits
    found = _highest if found > _highest else found
    return _none if found <= _lowest else found


@compiled
def blended(
    table: Array, lists: Any, background: Array, feature: int, first: int, last: int, columns: int, image: Array,
    ends: Array,
) -> None:  # fmt: skip
    """Write the tiles ``first`` to ``last`` of a picture (4, H, W) of four features.

    Args:
        table: rows of the Gaussians, from :func:`selftaught.networks._splat_projection.projected`.
        lists: from `listed`.
        background: (4,).
        feature: column of the first of the four.
        first: of the tiles.
        last: the one behind the last.
        columns: how many tiles stand beside each other.
        image: written.
        ends: (2, H, W), written: the light that is left, and from which place of a tile's list on none comes through.
    """
    starts, gaussians, rows = lists
    height, width = image.shape[1], image.shape[2]
    work = np.empty((_STOP + 1, _PIXELS), np.float32)
    for p in range(_PIXELS):
        work[_X, p], work[_Y, p] = p % WIDE, p // WIDE
    for tile in range(first, last):
        top, left = tile // columns * HIGH, tile % columns * WIDE
        work[:AT_ONCE] = _none
        work[_LIGHT] = _one
        work[_STOP] = _never
        for n in range(starts[tile], starts[tile + 1]):
            g, place = gaussians[n], np.float32(n - starts[tile])
            x, y, a, b, c, d = _exponent(table, g, left, top)
            f0, f1, f2, f3 = table[g, feature], table[g, feature + 1], table[g, feature + 2], table[g, feature + 3]
            for p in range(WIDE * (rows[n] & 15), WIDE * (rows[n] >> 4 & 15) + WIDE):
                dx, dy = work[_X, p] - x, work[_Y, p] - y
                alpha = _alpha(d + dx * (a * dx + b * dy) + c * dy * dy)
                light, stop = work[_LIGHT, p], work[_STOP, p]
                share = (_none if place >= stop else alpha) * light
                less = light - share
                dark = less < _dark
                work[_LIGHT, p] = light if dark else less
                work[_STOP, p] = place if dark else stop
                share = _none if dark else share
                work[0, p] += f0 * share
                work[1, p] += f1 * share
                work[2, p] += f2 * share
                work[3, p] += f3 * share
        for y in range(min(HIGH, height - top)):
            for x in range(min(WIDE, width - left)):
                light = work[_LIGHT, y * WIDE + x]
                for k in range(AT_ONCE):
                    image[k, top + y, left + x] = work[k, y * WIDE + x] + light * background[k]
                ends[0, top + y, left + x], ends[1, top + y, left + x] = light, work[_STOP, y * WIDE + x]


@compiled
def blended_back(
    table: Array, lists: Any, background: Array, feature: int, first: int, last: int, columns: int, ends: Array,
    wanted: Array, of_light: Array, made: Array,
) -> None:  # fmt: skip
    """Add to ``made``, the table's gradient, what tiles give whose four features' gradient is ``wanted`` (4, H, W).

    ``of_light`` (H, W) is the gradient of the light that is left; the rest is that of `blended`.
    """
    starts, gaussians, rows = lists
    height, width = wanted.shape[1], wanted.shape[2]
    work = np.empty((_BEHIND + 1, _PIXELS), np.float32)
    for p in range(_PIXELS):
        work[_X, p], work[_Y, p] = p % WIDE, p // WIDE
    for tile in range(first, last):
        top, left = tile // columns * HIGH, tile % columns * WIDE
        work[:AT_ONCE] = _none
        work[_LIGHT:] = _none
        for y in range(min(HIGH, height - top)):
            for x in range(min(WIDE, width - left)):
                behind = of_light[top + y, left + x]
                for k in range(AT_ONCE):
                    asked = wanted[k, top + y, left + x]
                    work[k, y * WIDE + x] = asked
                    behind += asked * background[k]
                light = ends[0, top + y, left + x]
                work[_LIGHT, y * WIDE + x], work[_BEHIND, y * WIDE + x] = light, light * behind
                work[_STOP, y * WIDE + x] = ends[1, top + y, left + x]
        for before in range(starts[tile + 1] - starts[tile]):
            n = starts[tile + 1] - 1 - before
            g, place = gaussians[n], np.float32(n - starts[tile])
            x, y, a, b, c, d = _exponent(table, g, left, top)
            f0, f1, f2, f3 = table[g, feature], table[g, feature + 1], table[g, feature + 2], table[g, feature + 3]
            t0 = t1 = t2 = t3 = m0 = mx = my = mxx = mxy = myy = _none
            for p in range(WIDE * (rows[n] & 15), WIDE * (rows[n] >> 4 & 15) + WIDE):
                dx, dy = work[_X, p] - x, work[_Y, p] - y
                alpha = _alpha(d + dx * (a * dx + b * dy) + c * dy * dy)
                alpha = _none if place >= work[_STOP, p] else alpha
                over = _one / (_one - alpha)
                light, behind = work[_LIGHT, p] * over, work[_BEHIND, p]
                work[_LIGHT, p] = light
                share = alpha * light
                w0, w1, w2, w3 = work[0, p], work[1, p], work[2, p], work[3, p]
                added = share * (f0 * w0 + f1 * w1 + f2 * w2 + f3 * w3)
                work[_BEHIND, p] = behind + added
                slope = added - behind * (alpha * over)
                slope = _none if alpha >= _full else slope
                t0 += w0 * share
                t1 += w1 * share
                t2 += w2 * share
                t3 += w3 * share
                m0 += slope
                mx += slope * dx
                my += slope * dy
                mxx += slope * dx * dx
                mxy += slope * dx * dy
                myy += slope * dy * dy
            made[g, 0] += table[g, 2] * mx + table[g, 3] * my
            made[g, 1] += table[g, 3] * mx + table[g, 4] * my
            made[g, 2] -= np.float32(0.5) * mxx
            made[g, 3] -= mxy
            made[g, 4] -= np.float32(0.5) * myy
            made[g, 5] += m0
            made[g, feature] += t0
            made[g, feature + 1] += t1
            made[g, feature + 2] += t2
            made[g, feature + 3] += t3


@compiled
def listed(spans: Array, keys: Array, columns: int, tiles: int) -> tuple[Array, Array, Array]:
    """For every tile what touches it, nearest first.

    Args:
        spans: (G, 4), from `projected`.
        keys: sorted, from `projected`, without those of Gaussians that aren't seen.
        columns: how many tiles stand beside each other.
        tiles: how many there are.

    Returns:
        Where each tile's list starts (tiles + 1,), all lists in one, and of each entry the rows of the tile that the
        Gaussian may touch: the first of them, and 16 times the last.
    """
    starts = np.zeros(tiles + 1, np.int64)
    for key in keys:
        g = np.int64(key & _number)
        for y in range(spans[g, 1] // HIGH, (spans[g, 3] + HIGH - 1) // HIGH):
            for x in range(spans[g, 0] // WIDE, (spans[g, 2] + WIDE - 1) // WIDE):
                starts[y * columns + x + 1] += 1
    for tile in range(tiles):
        starts[tile + 1] += starts[tile]
    found, rows, at = np.empty(starts[tiles], np.int32), np.empty(starts[tiles], np.uint8), starts.copy()
    for key in keys:
        g = np.int64(key & _number)
        for y in range(spans[g, 1] // HIGH, (spans[g, 3] + HIGH - 1) // HIGH):
            those = max(spans[g, 1] - y * HIGH, 0) + 16 * (min(spans[g, 3] - y * HIGH, HIGH) - 1)
            for x in range(spans[g, 0] // WIDE, (spans[g, 2] + WIDE - 1) // WIDE):
                n = at[y * columns + x]
                found[n], rows[n] = g, those
                at[y * columns + x] = n + 1
    return starts, found, rows
