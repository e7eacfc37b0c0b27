"""Kernels of splatting in float32 on a CPU, compiled by Numba; :mod:`selftaught.networks._splat_fast` runs them.

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

__all__ = ["AT_ONCE", "FIELDS", "HIGH", "WIDE", "blended", "blended_back", "listed", "projected", "projected_back"]

WIDE, HIGH = 8, 16
"""Sides of a tile: a row is a register of pixels; of a Gaussian's tile only the rows that it touches are looked at."""
FIELDS, AT_ONCE = 6, 4
"""Columns of a Gaussian's row before its features: centre (x, y), conic (3), ln of its opacity; and how many features
are blended at once: colours and depth."""
_PIXELS = WIDE * HIGH
_X, _Y, _LIGHT, _STOP, _BEHIND = range(AT_ONCE, AT_ONCE + 5)
"""Rows of a tile's scratch after those of the features. No light comes through from a place in the list on, `_STOP`."""

_one, _none = np.float32(1), np.float32(0)
_unseen, _number = np.uint64(2**64 - 1), np.uint64(2**32 - 1)
_lowest, _highest, _full = np.float32(LOWEST), np.float32(HIGHEST), np.float32(HIGHEST - 1e-6)
_dark = np.float32(1e-30)
"""Where less light would be left nothing more is seen: numbers too small to be normal are slow."""
_never = np.float32(1e9)
_ln_lowest = np.float32(np.log(LOWEST))
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
        table: rows of the Gaussians.
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


@compiled
def _turned(quaternions: Array, g: Any, turn: Array) -> Any:
    """Write the rotation (3, 3) of a quaternion of any length; its length."""
    w, x, y, z = quaternions[g, 0], quaternions[g, 1], quaternions[g, 2], quaternions[g, 3]
    length = np.sqrt(w * w + x * x + y * y + z * z)
    length = np.float32(1e-12) if length < np.float32(1e-12) else length
    w, x, y, z = w / length, x / length, y / length, z / length
    two = np.float32(2)
    turn[0, 0], turn[0, 1], turn[0, 2] = _one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)
    turn[1, 0], turn[1, 1], turn[1, 2] = two * (x * y + w * z), _one - two * (x * x + z * z), two * (y * z - w * x)
    turn[2, 0], turn[2, 1], turn[2, 2] = two * (x * z - w * y), two * (y * z + w * x), _one - two * (x * x + y * y)
    return length


@compiled
def _seen(means: Array, g: Any, camera: Array, pose: Array, turn: Array, jacobian: Array, half: Array) -> Any:
    """Write J W_R (2, 3) and J W_R R(q) (2, 3); the place in the camera's axes, and X / Z and Y / Z as J has them."""
    x, y, z = pose[0, 3], pose[1, 3], pose[2, 3]
    for k in range(3):
        x, y, z = x + pose[0, k] * means[g, k], y + pose[1, k] * means[g, k], z + pose[2, k] * means[g, k]
    across, down = x / z, y / z
    across = min(max(across, -camera[4]), camera[4])
    down = min(max(down, -camera[5]), camera[5])
    for k in range(3):
        jacobian[0, k] = camera[0] / z * (pose[0, k] - across * pose[2, k])
        jacobian[1, k] = camera[1] / z * (pose[1, k] - down * pose[2, k])
    for i in range(2):
        for j in range(3):
            half[i, j] = jacobian[i, 0] * turn[0, j] + jacobian[i, 1] * turn[1, j] + jacobian[i, 2] * turn[2, j]
    return x, y, z, across, down


@compiled
def projected(
    means: Array, quaternions: Array, scales: Array, opacities: Array, colours: Array, camera: Array, pose: Array,
    first: int, last: int, size: tuple[int, int], table: Array, spans: Array, keys: Array,
) -> None:  # fmt: skip
    """Write what `blended` and `listed` need of the Gaussians ``first`` to ``last``.

    Args:
        means: (G, 3), and so on: the five parts of Gaussians.
        quaternions: (G, 4).
        scales: (G, 3).
        opacities: (G,).
        colours: (G, C).
        camera: fx, fy, cx, cy, the limits of X / Z and Y / Z, near, blur, the first pixel's centre.
        pose: (3, 4), world to camera.
        first: of the Gaussians.
        last: the one behind the last.
        size: height and width of the picture.
        table: (G, 6 + 4k), written where a Gaussian is seen: centre, conic, ln opacity, colours, Z, and 0.
        spans: (G, 4), written: the pixels that it may touch, from (x, y) to before (x, y); nothing is 0 to 0.
        keys: (G,), written: the bits of Z before the Gaussian's number, which sort them; the highest for none.
    """
    turn, jacobian = np.empty((3, 3), np.float32), np.empty((2, 3), np.float32)
    half, channels = np.empty((2, 3), np.float32), colours.shape[1]
    near, blur, centre = camera[6], camera[7], camera[8]
    bits = np.empty(1, np.float32)
    for g in range(first, last):
        spans[g], keys[g] = 0, _unseen
        _turned(quaternions, g, turn)
        x, y, z, _, _ = _seen(means, g, camera, pose, turn, jacobian, half)
        if not (z >= near and opacities[g] > _lowest):
            continue
        wide, both, high = blur, _none, blur
        for j in range(3):
            along, beside = half[0, j] * scales[g, j], half[1, j] * scales[g, j]
            wide, both, high = wide + along * along, both + along * beside, high + beside * beside
        determinant = max(wide * high - both * both, np.float32(1e-12))
        table[g, 0], table[g, 1] = camera[0] * x / z + camera[2] - centre, camera[1] * y / z + camera[3] - centre
        table[g, 2], table[g, 3], table[g, 4] = high / determinant, -both / determinant, wide / determinant
        table[g, 5] = np.log(opacities[g])
        reach, empty = np.sqrt(np.float32(2) * (table[g, 5] - _ln_lowest)), False
        for axis in range(2):
            most, middle = size[1 - axis], table[g, axis]
            margin = reach * np.sqrt(wide if axis == 0 else high) * np.float32(1 + 1e-4) + np.float32(1e-3)
            spans[g, axis], spans[g, 2 + axis] = 0, most
            if abs(middle) + margin < np.float32(1e9):  # what isn't a number is everywhere, so that it is noticed
                spans[g, axis] = min(max(int(np.ceil(middle - margin)), 0), most)
                spans[g, 2 + axis] = max(min(int(np.floor(middle + margin)) + 1, most), 0)
            empty |= spans[g, axis] >= spans[g, 2 + axis]
        if empty:
            spans[g] = 0
            continue
        bits[0] = z
        keys[g] = np.uint64(bits.view(np.uint32)[0]) << np.uint64(32) | np.uint64(g)
        for k in range(table.shape[1] - FIELDS):
            table[g, FIELDS + k] = colours[g, k] if k < channels else z if k == channels else _none


@compiled
def projected_back(
    means: Array, quaternions: Array, scales: Array, opacities: Array, camera: Array, pose: Array, first: int,
    last: int, depth: int, table: Array, spans: Array, of_table: Array, of_means: Array, of_quaternions: Array,
    of_scales: Array, of_opacities: Array, of_camera: Array, of_pose: Array,
) -> None:  # fmt: skip
    """Gradients of the five parts; those of fx, fy, cx, cy and of the pose (3, 4) are added up in double precision.

    ``depth`` is the table's column of Z, ``of_table`` what `blended_back` made.
    """
    turn, jacobian, half = np.empty((3, 3), np.float32), np.empty((2, 3), np.float32), np.empty((2, 3), np.float32)
    of_half, of_jacobian = np.empty((2, 3), np.float32), np.empty((2, 3), np.float32)
    of_turn, two = np.empty((3, 3), np.float32), np.float32(2)
    for g in range(first, last):
        if spans[g, 2] == 0:
            continue
        length = _turned(quaternions, g, turn)
        x, y, z, across, down = _seen(means, g, camera, pose, turn, jacobian, half)
        of_opacities[g] = of_table[g, 5] / opacities[g]
        # the conic, from the covariance: with the inverse A of S, dS = -A dA A
        a, b, c = table[g, 2], table[g, 3], table[g, 4]
        ga, gb, gc = of_table[g, 2], np.float32(0.5) * of_table[g, 3], of_table[g, 4]
        left_a, left_b = a * ga + b * gb, a * gb + b * gc
        right_a, right_b = b * ga + c * gb, b * gb + c * gc
        of_wide, of_high = -(left_a * a + left_b * b), -(right_a * b + right_b * c)
        of_both = -two * (left_a * b + left_b * c)
        for j in range(3):
            s = scales[g, j]
            along, beside = half[0, j] * s, half[1, j] * s
            of_along = two * of_wide * along + of_both * beside
            of_beside = two * of_high * beside + of_both * along
            of_scales[g, j] = of_along * half[0, j] + of_beside * half[1, j]
            of_half[0, j], of_half[1, j] = of_along * s, of_beside * s
        for k in range(3):
            for j in range(3):
                of_turn[k, j] = jacobian[0, k] * of_half[0, j] + jacobian[1, k] * of_half[1, j]
            for i in range(2):
                of_jacobian[i, k] = of_half[i, 0] * turn[k, 0] + of_half[i, 1] * turn[k, 1] + of_half[i, 2] * turn[k, 2]
        # J W_R, whose rows are f / z (R_i - X / Z R_3), and the centre
        gx, gy, gz = _none, _none, of_table[g, depth]
        for i in range(2):
            f, ratio, at, side = camera[i], (across, down)[i], (x, y)[i], of_table[g, i]
            of_scale, of_ratio = _none, _none
            for k in range(3):
                part = of_jacobian[i, k]
                of_scale += part * (pose[i, k] - ratio * pose[2, k])
                of_ratio -= f / z * part * pose[2, k]
                of_pose[i, k] += f / z * part
                of_pose[2, k] -= f / z * ratio * part
            of_at, of_f = f / z * side, at / z * side + of_scale / z
            gz -= f / z * (at / z * side + of_scale / z)
            if abs(at / z) <= camera[4 + i]:
                of_at += of_ratio / z
                gz -= of_ratio * ratio / z
            else:
                of_f -= of_ratio * ratio / f
            of_camera[i] += of_f
            of_camera[2 + i] += side
            gx, gy = gx + (of_at if i == 0 else _none), gy + (of_at if i == 1 else _none)
        for k in range(3):
            of_means[g, k] = pose[0, k] * gx + pose[1, k] * gy + pose[2, k] * gz
            of_pose[0, k] += gx * means[g, k]
            of_pose[1, k] += gy * means[g, k]
            of_pose[2, k] += gz * means[g, k]
        of_pose[0, 3] += gx
        of_pose[1, 3] += gy
        of_pose[2, 3] += gz
        # the rotation
        w, qx = quaternions[g, 0] / length, quaternions[g, 1] / length
        qy, qz = quaternions[g, 2] / length, quaternions[g, 3] / length
        t = of_turn
        of_w = two * (qx * (t[2, 1] - t[1, 2]) + qy * (t[0, 2] - t[2, 0]) + qz * (t[1, 0] - t[0, 1]))
        of_x = two * (
            w * (t[2, 1] - t[1, 2])
            + qy * (t[0, 1] + t[1, 0])
            + qz * (t[0, 2] + t[2, 0])
            - two * qx * (t[1, 1] + t[2, 2])
        )
        of_y = two * (
            w * (t[0, 2] - t[2, 0])
            + qx * (t[0, 1] + t[1, 0])
            + qz * (t[1, 2] + t[2, 1])
            - two * qy * (t[0, 0] + t[2, 2])
        )
        of_z = two * (
            w * (t[1, 0] - t[0, 1])
            + qx * (t[0, 2] + t[2, 0])
            + qy * (t[1, 2] + t[2, 1])
            - two * qz * (t[0, 0] + t[1, 1])
        )
        along = w * of_w + qx * of_x + qy * of_y + qz * of_z
        of_quaternions[g, 0], of_quaternions[g, 1] = (of_w - w * along) / length, (of_x - qx * along) / length
        of_quaternions[g, 2], of_quaternions[g, 3] = (of_y - qy * along) / length, (of_z - qz * along) / length
