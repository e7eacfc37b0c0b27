"""Kernels of splatting in float32 on a CPU, compiled by Numba; :mod:`selftaught.networks._splat_fast` runs them.

The equations are those of :mod:`selftaught.networks.gaussians` and :mod:`selftaught.networks.splatting`, each pass
written out: what a tile's pixels need stays in the nearest cache, and nothing per Gaussian and pixel goes to memory.
The way back computes alpha and the light once more.

Numba takes a moment to be imported, and only an extra brings it: import this module only where a kernel runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught._compiling import compiled
from selftaught.networks._splat_tiles import HIGHEST, LOWEST

__all__ = ["FIELDS", "TILE", "blended", "blended_back", "listed", "projected", "projected_back"]

TILE = 8
"""Side of a tile: a few registers of pixels, so that sums over them cost little beside the pixels."""
FIELDS = 6
"""Columns of a Gaussian's row before its features: centre (x, y), conic (3), ln of its opacity."""
_PIXELS = TILE * TILE
_X, _Y, _ALPHA, _LIGHT, _SHARE = range(5)
_BEHIND, _VALUE = _ALPHA, _SHARE
"""Rows of a tile's scratch; on the way back: what comes from behind, what a Gaussian's light is worth."""

_one, _none = np.float32(1), np.float32(0)
_lowest, _highest, _full = np.float32(LOWEST), np.float32(HIGHEST), np.float32(HIGHEST - 1e-6)
_dark = np.float32(1e-30)
"""Less light than this is none: numbers too small to be normal are slow."""
_faded, _to_2 = np.float32(-9.0), np.float32(1 / np.log(2))
_nodes = (np.cos(np.pi * (np.arange(64) + 0.5) / 64) + 1) / 2
_fit = np.polynomial.Chebyshev.fit(_nodes, 2**_nodes, 6, domain=[0, 1])
_p0, _p1, _p2, _p3, _p4, _p5, _p6 = _fit.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)
"""2^f of f in [0, 1) within 2e-8."""

Array = NDArray[Any]


# ---- compiled ----------------------------------------------------------------------------------------
@compiled
def _alphas(table: Array, g: Any, left: Any, top: Any, work: Array) -> Any:
    """Write alpha of a tile's pixels by one Gaussian; their sum."""
    x, y = table[g, 0] - left, table[g, 1] - top
    a, b, c = np.float32(-0.5) * _to_2 * table[g, 2], -_to_2 * table[g, 3], np.float32(-0.5) * _to_2 * table[g, 4]
    constant = _to_2 * table[g, 5]
    total = _none
    for p in range(_PIXELS):
        dx, dy = work[_X, p] - x, work[_Y, p] - y
        power = constant + dx * (a * dx + b * dy) + c * dy * dy
        power = _faded if power < _faded else power
        whole = np.floor(power)
        f = power - whole
        found = _p0 + f * (_p1 + f * (_p2 + f * (_p3 + f * (_p4 + f * (_p5 + f * _p6)))))
        found *= np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)  # 2^whole by its bits
        found = _highest if found > _highest else found
        found = _none if found <= _lowest else found
        work[_ALPHA, p] = found
        total += found
    return total


@compiled
def blended(
    table: Array, starts: Array, listed: Array, background: Array, first: int, last: int, columns: int, image: Array
) -> None:
    """Write the tiles ``first`` to ``last`` of a picture (F + 1, H, W); its last channel is the light that is left."""
    features, height, width = len(background), image.shape[1], image.shape[2]
    work, sums = np.empty((5, _PIXELS), np.float32), np.empty((features, _PIXELS), np.float32)
    for p in range(_PIXELS):
        work[_X, p], work[_Y, p] = p % TILE, p // TILE
    for tile in range(first, last):
        top, left = tile // columns * TILE, tile % columns * TILE
        work[_LIGHT] = _one
        sums[:] = _none
        for n in range(starts[tile], starts[tile + 1]):
            g = listed[n]
            if _alphas(table, g, np.float32(left), np.float32(top), work) == _none:
                continue
            for p in range(_PIXELS):
                alpha, light = work[_ALPHA, p], work[_LIGHT, p]
                work[_SHARE, p] = alpha * light
                light *= _one - alpha
                work[_LIGHT, p] = _none if light < _dark else light
            for f in range(features):
                feature = table[g, FIELDS + f]
                for p in range(_PIXELS):
                    sums[f, p] += feature * work[_SHARE, p]
        for y in range(min(TILE, height - top)):
            for x in range(min(TILE, width - left)):
                light = work[_LIGHT, y * TILE + x]
                for f in range(features):
                    image[f, top + y, left + x] = sums[f, y * TILE + x] + light * background[f]
                image[features, top + y, left + x] = light


@compiled
def blended_back(
    table: Array, starts: Array, listed: Array, background: Array, first: int, last: int, columns: int,
    wanted: Array, made: Array,
) -> None:  # fmt: skip
    """Add to ``made``, the table's gradient, what the tiles give whose picture's gradient is ``wanted``."""
    features, height, width = len(background), wanted.shape[1], wanted.shape[2]
    most = 0
    for tile in range(first, last):
        most = max(most, starts[tile + 1] - starts[tile])
    work, asked = np.empty((5, _PIXELS), np.float32), np.empty((features + 1, _PIXELS), np.float32)
    kept, those = np.empty((most, 2, _PIXELS), np.float32), np.empty(most, np.int64)
    for p in range(_PIXELS):
        work[_X, p], work[_Y, p] = p % TILE, p // TILE
    for tile in range(first, last):
        top, left = tile // columns * TILE, tile % columns * TILE
        asked[:] = _none
        for f in range(features + 1):
            for y in range(min(TILE, height - top)):
                for x in range(min(TILE, width - left)):
                    asked[f, y * TILE + x] = wanted[f, top + y, left + x]
        work[_LIGHT] = _one
        count = 0
        for n in range(starts[tile], starts[tile + 1]):
            if _alphas(table, listed[n], np.float32(left), np.float32(top), work) == _none:
                continue
            those[count] = listed[n]
            for p in range(_PIXELS):
                alpha, light = work[_ALPHA, p], work[_LIGHT, p]
                kept[count, 0, p], kept[count, 1, p] = alpha, light
                light *= _one - alpha
                work[_LIGHT, p] = _none if light < _dark else light
            count += 1
        for p in range(_PIXELS):
            behind = asked[features, p]
            for f in range(features):
                behind += asked[f, p] * background[f]
            work[_BEHIND, p] = behind * work[_LIGHT, p]
        for before in range(count):
            n = count - 1 - before
            g = those[n]
            work[_VALUE] = _none
            for f in range(features):
                feature, total = table[g, FIELDS + f], _none
                for p in range(_PIXELS):
                    work[_VALUE, p] += feature * asked[f, p]
                    total += asked[f, p] * kept[n, 0, p] * kept[n, 1, p]
                made[g, FIELDS + f] += total
            at_x, at_y = table[g, 0] - np.float32(left), table[g, 1] - np.float32(top)
            m0 = mx = my = mxx = mxy = myy = _none
            for p in range(_PIXELS):
                alpha, behind = kept[n, 0, p], work[_BEHIND, p]
                added = alpha * kept[n, 1, p] * work[_VALUE, p]
                slope = added - behind * alpha / (_one - alpha)
                slope = _none if alpha >= _full else slope
                work[_BEHIND, p] = behind + added
                dx, dy = work[_X, p] - at_x, work[_Y, p] - at_y
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


@compiled
def listed(spans: Array, order: Array, columns: int, tiles: int) -> tuple[Array, Array]:
    """For every tile what touches it, in this order: where its list starts (tiles + 1,), and all lists in one."""
    starts = np.zeros(tiles + 1, np.int64)
    for g in order:
        for y in range(spans[g, 1], spans[g, 3]):
            for x in range(spans[g, 0], spans[g, 2]):
                starts[y * columns + x + 1] += 1
    for tile in range(tiles):
        starts[tile + 1] += starts[tile]
    found, at = np.empty(starts[tiles], np.int64), starts.copy()
    for g in order:
        for y in range(spans[g, 1], spans[g, 3]):
            for x in range(spans[g, 0], spans[g, 2]):
                found[at[y * columns + x]] = g
                at[y * columns + x] += 1
    return starts, found


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
    first: int, last: int, grid: tuple[int, int], table: Array, spans: Array,
) -> None:  # fmt: skip
    """Write the rows of Gaussians that are seen, with Z behind the colours, and the tiles that each touches."""
    turn, jacobian = np.empty((3, 3), np.float32), np.empty((2, 3), np.float32)
    half, channels = np.empty((2, 3), np.float32), colours.shape[1]
    near, blur, centre = camera[6], camera[7], camera[8]
    for g in range(first, last):
        _turned(quaternions, g, turn)
        x, y, z, _, _ = _seen(means, g, camera, pose, turn, jacobian, half)
        table[g, FIELDS + channels] = z
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
        for c in range(channels):
            table[g, FIELDS + c] = colours[g, c]
        reach = np.sqrt(np.float32(2) * np.log(opacities[g] / _lowest))
        for axis in range(2):
            most, middle = grid[1 - axis], table[g, axis]
            margin = reach * np.sqrt(wide if axis == 0 else high) * np.float32(1 + 1e-4) + np.float32(1e-3)
            spans[g, axis], spans[g, 2 + axis] = 0, most
            if abs(middle) + margin < np.float32(1e9):  # what isn't a number is everywhere, so that it is noticed
                spans[g, axis] = min(max(int(np.floor((middle - margin) / TILE)), 0), most)
                spans[g, 2 + axis] = min(int(np.floor((middle + margin) / TILE)) + 1, most)


@compiled
def projected_back(
    means: Array, quaternions: Array, scales: Array, opacities: Array, camera: Array, pose: Array, first: int,
    last: int, table: Array, spans: Array, of_table: Array, of_means: Array, of_quaternions: Array, of_scales: Array,
    of_opacities: Array, of_camera: Array, of_pose: Array,
) -> None:  # fmt: skip
    """Gradients of the five parts; those of fx, fy, cx, cy and of the pose (3, 4) are added up in double precision."""
    turn, jacobian, half = np.empty((3, 3), np.float32), np.empty((2, 3), np.float32), np.empty((2, 3), np.float32)
    of_half, of_jacobian = np.empty((2, 3), np.float32), np.empty((2, 3), np.float32)
    of_turn, two = np.empty((3, 3), np.float32), np.float32(2)
    for g in range(first, last):
        if spans[g, 0] >= spans[g, 2] or spans[g, 1] >= spans[g, 3]:
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
        gx, gy, gz = _none, _none, of_table[g, -1]
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
