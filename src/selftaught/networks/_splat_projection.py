"""Kernels in float32 that project Gaussians onto a picture, and the way back; :mod:`selftaught.networks._splat_fast`
runs them. Import this module only where one runs: it imports Numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught._compiling import compiled
from selftaught.networks._splat_tiles import LOWEST

__all__ = ["FIELDS", "projected", "projected_back"]

FIELDS = 6
"""Columns of a Gaussian's row before its features: centre (x, y), conic (3), ln of its opacity."""
_one, _none, _unseen = np.float32(1), np.float32(0), np.uint64(2**64 - 1)
_lowest, _ln_lowest = np.float32(LOWEST), np.float32(np.log(LOWEST))

Array = NDArray[Any]


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
def _of_covariance(table: Array, g: Any, of_table: Array) -> Any:
    """Gradient of the covariance's (x, x), (x, y) and (y, y) from the conic's: with A = S^-1, dS = -A dA A."""
    a, b, c = table[g, 2], table[g, 3], table[g, 4]
    ga, gb, gc = of_table[g, 2], np.float32(0.5) * of_table[g, 3], of_table[g, 4]
    left_a, left_b = a * ga + b * gb, a * gb + b * gc
    right_a, right_b = b * ga + c * gb, b * gb + c * gc
    return -(left_a * a + left_b * b), -np.float32(2) * (left_a * b + left_b * c), -(right_a * b + right_b * c)


@compiled
def _turned_back(quaternions: Array, g: Any, length: Any, t: Array, of_quaternions: Array) -> None:
    """Write the gradient of a quaternion from that of its rotation, t (3, 3); ``length`` is what `_turned` gave."""
    two = np.float32(2)
    w, x = quaternions[g, 0] / length, quaternions[g, 1] / length
    y, z = quaternions[g, 2] / length, quaternions[g, 3] / length
    of_w = two * (x * (t[2, 1] - t[1, 2]) + y * (t[0, 2] - t[2, 0]) + z * (t[1, 0] - t[0, 1]))
    of_x = two * (
        w * (t[2, 1] - t[1, 2]) + y * (t[0, 1] + t[1, 0]) + z * (t[0, 2] + t[2, 0]) - two * x * (t[1, 1] + t[2, 2])
    )
    of_y = two * (
        w * (t[0, 2] - t[2, 0]) + x * (t[0, 1] + t[1, 0]) + z * (t[1, 2] + t[2, 1]) - two * y * (t[0, 0] + t[2, 2])
    )
    of_z = two * (
        w * (t[1, 0] - t[0, 1]) + x * (t[0, 2] + t[2, 0]) + y * (t[1, 2] + t[2, 1]) - two * z * (t[0, 0] + t[1, 1])
    )
    along = w * of_w + x * of_x + y * of_y + z * of_z
    of_quaternions[g, 0], of_quaternions[g, 1] = (of_w - w * along) / length, (of_x - x * along) / length
    of_quaternions[g, 2], of_quaternions[g, 3] = (of_y - y * along) / length, (of_z - z * along) / length


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
        of_wide, of_both, of_high = _of_covariance(table, g, of_table)
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
        _turned_back(quaternions, g, length, of_turn, of_quaternions)
