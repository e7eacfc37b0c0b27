"""Splatting by compiled kernels: shares them out among threads, and gives PyTorch their gradients.

Each thread has sums of its own, so that one number of threads gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selftaught.networks import _splat_blending as blending
from selftaught.networks import _splat_projection as projection
from selftaught.networks.gaussians import LIMIT, Gaussians

__all__ = ["render"]

BUSY = 1 << 12
"""Gaussians, or pairs of a tile and a Gaussian, for which another thread pays."""
Array = NDArray[Any]


class _Camera(NamedTuple):
    """What the kernels know of it: the numbers and the pose of `projected`, the picture's height and width."""

    numbers: Array
    pose: Array
    size: tuple[int, int]


def render(
    gaussians: Gaussians,
    intrinsics: Tensor,
    world_to_camera: Tensor,
    size: tuple[int, int],
    background: Tensor,
    *,
    near: float,
    blur: float,
    pixel_centre: float,
) -> tuple[Tensor, Tensor]:
    """Colours and depth (C + 1, H, W), and the light that is left (H, W); float32 on the CPU, background (C,)."""
    fx, fy, cx, cy = (float(intrinsics.detach()[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    limits = LIMIT * size[1] / (2 * fx), LIMIT * size[0] / (2 * fy)
    numbers = np.array((fx, fy, cx, cy, *limits, near, blur, pixel_centre), np.float32)
    camera = _Camera(numbers, _array(world_to_camera[:3]), (int(size[0]), int(size[1])))
    found: tuple[Tensor, Tensor] = _Render.apply(*gaussians, intrinsics, world_to_camera, background, camera)
    return found


class _Render(torch.autograd.Function):
    """Projects, sorts, lists and blends; the way back is written out."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        *parts, _, _, background, camera = inputs
        arrays = [_array(part) for part in parts]
        count, channels = arrays[4].shape
        groups = range(0, channels + 1, blending.AT_ONCE)
        features = len(groups) * blending.AT_ONCE
        table = np.empty((count, projection.FIELDS + features), np.float32)
        spans, keys = np.empty((count, 4), np.int32), np.empty(count, np.uint64)

        def project(_: int, first: int, last: int) -> None:
            made = table, spans, keys
            projection.projected(*arrays, camera.numbers, camera.pose, first, last, camera.size, *made)

        _shared(project, _evenly(count))
        keys.sort()
        columns, rows = -(-camera.size[1] // blending.WIDE), -(-camera.size[0] // blending.HIGH)
        seen = keys[: np.searchsorted(keys, np.uint64(2**64 - 1))]
        lists = blending.listed(spans, seen, columns, columns * rows)
        behind = np.zeros(features, np.float32)
        behind[:channels] = _array(background)
        picture, ends = np.empty((features, *camera.size), np.float32), np.empty((2, *camera.size), np.float32)

        def blend(_: int, first: int, last: int) -> None:
            for k in groups:
                four = slice(k, k + blending.AT_ONCE)
                blending.blended(
                    table, lists, behind[four], projection.FIELDS + k, first, last, columns, picture[four], ends
                )

        _shared(blend, _by_load(lists[0]))
        ctx.save_for_backward(*parts)
        ctx.known = camera, table, spans, lists, behind, ends, columns
        return torch.from_numpy(picture[: channels + 1]), torch.from_numpy(ends[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        camera, table, spans, lists, behind, ends, columns = ctx.known
        parts = ctx.saved_tensors
        count, channels = parts[4].shape
        of_table = _blend_back(table, lists, behind, ends, columns, *(_array(grad) for grad in grads))
        bounds = _evenly(count)
        made = [np.zeros(part.shape, np.float32) for part in parts[:4]]
        of_numbers, of_pose = np.zeros((len(bounds) - 1, 4)), np.zeros((len(bounds) - 1, 4, 4))
        known = [*(_array(part) for part in parts[:4]), camera.numbers, camera.pose]
        given = projection.FIELDS + channels, table, spans, of_table

        def project(part: int, first: int, last: int) -> None:
            projection.projected_back(*known, first, last, *given, *made, of_numbers[part], of_pose[part])

        _shared(project, bounds)
        of_intrinsics = np.zeros((3, 3), np.float32)
        of_intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]] = of_numbers.sum(0)
        of_colours = of_table[:, projection.FIELDS : projection.FIELDS + channels]
        of_background = (grads[0][:channels] * torch.from_numpy(ends[0])).sum((1, 2))
        found = *made, of_colours, of_intrinsics, of_pose.sum(0).astype(np.float32)
        return *(torch.from_numpy(x) for x in found), of_background, None


def _blend_back(
    table: Array, lists: Any, behind: Array, ends: Array, columns: int, wanted: Array, of_light: Array
) -> Array:
    """Gradient of the table."""
    asked, bounds = wanted, _by_load(lists[0])
    if len(wanted) < len(behind):
        asked = np.zeros((len(behind), *wanted.shape[1:]), np.float32)
        asked[: len(wanted)] = wanted
    made = np.zeros((len(bounds) - 1, *table.shape), np.float32)

    def work(part: int, first: int, last: int) -> None:
        for k in range(0, len(behind), blending.AT_ONCE):
            four = slice(k, k + blending.AT_ONCE)
            given = ends, asked[four], of_light if k == 0 else np.zeros_like(of_light)
            blending.blended_back(
                table, lists, behind[four], projection.FIELDS + k, first, last, columns, *given, made[part]
            )

    _shared(work, bounds)
    found: Array = made.sum(0) if len(made) > 1 else made[0]
    return found


def _array(tensor: Tensor) -> Array:
    found: Array = tensor.detach().contiguous().numpy()
    return found


def _threads(load: int) -> int:
    return max(1, min(torch.get_num_threads(), load // BUSY))


def _evenly(count: int) -> Array:
    return _between(count, _threads(count))


def _between(last: int, parts: int) -> Array:
    return np.arange(parts + 1) * last // parts


def _by_load(starts: Array) -> Array:
    """Bounds between tiles, about as many pairs between each two."""
    bounds = np.searchsorted(starts, _between(int(starts[-1]), _threads(int(starts[-1]))))
    bounds[0], bounds[-1] = 0, len(starts) - 1
    return bounds


def _shared(work: Callable[[int, int, int], None], bounds: Array) -> None:
    """Run ``work(part, first, last)`` between the bounds, each part in a thread of its own."""
    parts = list(zip(range(len(bounds)), bounds[:-1].tolist(), bounds[1:].tolist(), strict=False))
    if len(parts) == 1:
        return work(*parts[0])
    with ThreadPoolExecutor(len(parts)) as pool:
        for _ in pool.map(lambda part: work(*part), parts):
            pass
