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

from selftaught.networks import _splat_kernels as kernels
from selftaught.networks.gaussians import LIMIT, Gaussians

__all__ = ["render"]

BUSY = 1 << 12
"""Gaussians, or pairs of a tile and a Gaussian, for which another thread pays."""
Array = NDArray[Any]


class _Camera(NamedTuple):
    """What the kernels know of it: fx fy cx cy, the limits of X / Z and Y / Z, near, blur, the first pixel's centre."""

    numbers: Array
    pose: Array
    grid: tuple[int, int]


class _Lists(NamedTuple):
    """What tiles see: where the list of each starts, the lists, how many tiles stand beside each other."""

    starts: Array
    gaussians: Array
    columns: int


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
) -> Tensor:
    """Colours, depth and the light that is left, (C + 2, H, W); all in float32 on the CPU, background (C,)."""
    grid = -(-size[0] // kernels.TILE), -(-size[1] // kernels.TILE)
    camera = _camera(intrinsics, world_to_camera, size, grid, (near, blur, pixel_centre))
    table, spans = _Project.apply(*gaussians, intrinsics, world_to_camera, camera)
    starts, numbers = kernels.listed(spans.numpy(), _nearest_first(table, spans), grid[1], grid[0] * grid[1])
    behind = torch.cat((background, background.new_zeros(1)))
    return _Blend.apply(table, behind, _Lists(starts, numbers, grid[1]), size)


def _camera(
    intrinsics: Tensor, pose: Tensor, size: tuple[int, int], grid: tuple[int, int], rest: tuple[float, float, float]
) -> _Camera:
    fx, fy, cx, cy = (float(intrinsics.detach()[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    numbers = (fx, fy, cx, cy, LIMIT * size[1] / (2 * fx), LIMIT * size[0] / (2 * fy), *rest)
    return _Camera(np.array(numbers, np.float32), _array(pose[:3]), grid)


def _nearest_first(table: Tensor, spans: Tensor) -> Array:
    """Numbers of the Gaussians that touch a tile; the sort keeps the order of equal ones, by 16 bits at a time."""
    these = ((spans[:, 0] < spans[:, 2]) & (spans[:, 1] < spans[:, 3])).nonzero()[:, 0].numpy()
    depths = _array(table[:, -1])[these].view(np.uint32)  # the bits of numbers above 0 are in their order
    order = (depths & 0xFFFF).astype(np.uint16).argsort(kind="stable")
    return these[order[(depths >> 16).astype(np.uint16)[order].argsort(kind="stable")]]


class _Project(torch.autograd.Function):
    """Rows of the Gaussians on the picture, and which tiles each touches."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        *parts, _, _, camera = inputs
        arrays = [_array(part) for part in parts]
        count, channels = arrays[4].shape
        table, spans = torch.zeros(count, kernels.FIELDS + channels + 1), torch.zeros(count, 4, dtype=torch.int32)

        def work(_: int, first: int, last: int) -> None:
            made = table.numpy(), spans.numpy()
            kernels.projected(*arrays, camera.numbers, camera.pose, first, last, camera.grid, *made)

        _shared(work, _evenly(count, count))
        ctx.save_for_backward(*parts, table, spans)
        ctx.camera = camera
        ctx.mark_non_differentiable(spans)
        return table, spans

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        *parts, colours, table, spans = ctx.saved_tensors
        count, channels = colours.shape
        bounds = _evenly(count, count)
        made = [torch.zeros_like(part, memory_format=torch.contiguous_format) for part in parts]
        of_numbers, of_pose = np.zeros((len(bounds) - 1, 4)), np.zeros((len(bounds) - 1, 4, 4))
        known = [*(_array(part) for part in parts), ctx.camera.numbers, ctx.camera.pose]
        given = _array(table), _array(spans), _array(grads[0])

        def work(part: int, first: int, last: int) -> None:
            found = [tensor.numpy() for tensor in made]
            kernels.projected_back(*known, first, last, *given, *found, of_numbers[part], of_pose[part])

        _shared(work, bounds)
        of_intrinsics = table.new_zeros(3, 3)
        of_intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]] = torch.from_numpy(of_numbers.sum(0)).to(table)
        of_colours = grads[0][:, kernels.FIELDS : kernels.FIELDS + channels]
        return *made, of_colours, of_intrinsics, torch.from_numpy(of_pose.sum(0)).to(table), None


class _Blend(torch.autograd.Function):
    """The picture of a table's rows with the light that is left behind it, (F + 1, H, W)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, background: Tensor, lists: _Lists, size: tuple[int, int]) -> Tensor:
        picture = table.new_empty(len(background) + 1, *size)
        rows, behind = _array(table), _array(background)

        def work(_: int, first: int, last: int) -> None:
            kernels.blended(rows, lists.starts, lists.gaussians, behind, first, last, lists.columns, picture.numpy())

        _shared(work, _by_load(lists.starts))
        ctx.save_for_backward(table, background, picture[-1])
        ctx.lists = lists
        return picture

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        table, background, through = ctx.saved_tensors
        lists: _Lists = ctx.lists
        rows, behind, wanted = _array(table), _array(background), _array(grads[0])
        bounds = _by_load(lists.starts)
        made = table.new_zeros(len(bounds) - 1, *table.shape)

        def work(part: int, first: int, last: int) -> None:
            known = rows, lists.starts, lists.gaussians, behind, first, last, lists.columns
            kernels.blended_back(*known, wanted, made[part].numpy())

        _shared(work, bounds)
        return made.sum(0) if len(made) > 1 else made[0], (grads[0][:-1] * through).sum((1, 2)), None, None


def _array(tensor: Tensor) -> Array:
    found: Array = tensor.detach().contiguous().numpy()
    return found


def _threads(load: int) -> int:
    return max(1, min(torch.get_num_threads(), load // BUSY))


def _evenly(count: int, load: int) -> Array:
    return np.linspace(0, count, _threads(load) + 1).astype(np.int64)


def _by_load(starts: Array) -> Array:
    """Bounds between tiles, about as many pairs between each two."""
    bounds = np.searchsorted(starts, np.linspace(0, starts[-1], _threads(int(starts[-1])) + 1))
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
