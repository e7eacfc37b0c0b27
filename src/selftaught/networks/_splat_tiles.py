"""Which Gaussians the tiles of a picture see, for :mod:`selftaught.networks.splatting`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from selftaught.networks.gaussians import ProjectedGaussians

HIGHEST = 0.99
"""No Gaussian covers more of a pixel."""
LOWEST = 1 / 255
"""Below this share a Gaussian is left out of a pixel."""
CELLS = 1 << 17
"""Pairs of a pixel and a Gaussian that are worked on at once: a few arrays of that many numbers fit into a cache."""


class Group(NamedTuple):
    """Tiles that see about as many Gaussians, which are blended together.

    Attributes:
        tiles: (B,) their numbers.
        gaussians: (B, K) what each sees, nearest first; the number of all Gaussians, G, stands for none.
    """

    tiles: Tensor
    gaussians: Tensor


class Plan(NamedTuple):
    """The tiles of a picture.

    Attributes:
        groups: those that see any Gaussian.
        side: height and width of a tile.
        grid: how many stand below and beside each other.
        pairs: of a tile and a Gaussian that it sees.
    """

    groups: list[Group]
    side: tuple[int, int]
    grid: tuple[int, int]
    pairs: int

    def middles(self, tiles: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """x and y of the middle of each, (B, 1)."""
        height, width = self.side
        x, y = tiles % self.grid[1] * width + (width - 1) / 2, tiles // self.grid[1] * height + (height - 1) / 2
        return x.to(dtype)[:, None], y.to(dtype)[:, None]

    def cut(self, picture: Tensor) -> Tensor:
        """(F, H, W) as tiles, (tiles, F, U); what hangs over the picture's edge is 0."""
        (height, width), (rows, columns) = self.side, self.grid
        over = rows * height - picture.shape[1], columns * width - picture.shape[2]
        whole = torch.nn.functional.pad(picture, (0, over[1], 0, over[0])) if any(over) else picture
        cells = whole.view(-1, rows, height, columns, width).permute(1, 3, 0, 2, 4)
        return cells.reshape(rows * columns, -1, height * width)

    def joined(self, tiles: Tensor, size: tuple[int, int]) -> Tensor:
        """The other way."""
        (height, width), (rows, columns) = self.side, self.grid
        cells = tiles.view(rows, columns, -1, height, width).permute(2, 0, 3, 1, 4)
        return cells.reshape(-1, rows * height, columns * width)[:, : size[0], : size[1]].contiguous()


def plan_tiles(
    projected: ProjectedGaussians, opacities: Tensor, size: tuple[int, int], centre: float, tile: int
) -> Plan:
    """Cut a picture (height, width) into tiles of a side, and list for each what touches it; ``centre`` of a pixel."""
    side = min(tile, size[0]), min(tile, size[1])
    rows, columns = -(-size[0] // side[0]), -(-size[1] // side[1])
    chosen = (projected.seen & (opacities > LOWEST)).nonzero()[:, 0]
    order = chosen[torch.argsort(projected.depths[chosen], stable=True)]
    reach = (2 * torch.log(opacities[order] / LOWEST)).sqrt()
    at, spread = projected.means[order] - centre, projected.covariances[order]
    spans = []
    for axis, (length, most) in enumerate(((side[1], columns), (side[0], rows))):
        half = reach * spread[:, 2 * axis].sqrt() * (1 + 1e-4) + 1e-3
        low, high = ((at[:, axis] + sign * half) / length for sign in (-1, 1))
        first = low.clamp(0, most).floor().to(torch.int32)
        spans.append((first, (high.clamp(-1, most - 1).floor().to(torch.int32) - first + 1).clamp_min_(0)))
    (left, wide), (top, high) = spans
    counts = wide * high
    owner = torch.repeat_interleave(counts)
    corner = top * columns + left
    starts = counts.cumsum(0, dtype=torch.int32) - counts
    place = torch.arange(len(owner), device=at.device, dtype=torch.int32) - starts.index_select(0, owner)
    wide = wide.index_select(0, owner)
    down = torch.div(place, wide, rounding_mode="floor")
    tiles = corner.index_select(0, owner) + place + down * (columns - wide)  # down * columns + place - down * wide
    return Plan(
        _groups(order.index_select(0, owner), tiles, rows * columns, side, len(opacities)),
        side,
        (rows, columns),
        len(owner),
    )


def _groups(gaussians: Tensor, tiles: Tensor, count: int, side: tuple[int, int], none: int) -> list[Group]:
    """Pairs of a Gaussian and a tile, nearest first, as lists of about one length: `CELLS` numbers or one tile each."""
    gaussians = gaussians.index_select(0, _stable_order(tiles, count))
    lengths = torch.bincount(tiles, minlength=count)
    starts = lengths.cumsum(0) - lengths
    by_length = torch.argsort(lengths, descending=True, stable=True)
    sorted_lengths = lengths[by_length].tolist()
    groups, begin = [], 0
    while begin < count and sorted_lengths[begin]:
        longest = sorted_lengths[begin]
        end = begin + max(1, CELLS // (longest * side[0] * side[1]))
        while sorted_lengths[min(end, count) - 1] == 0:
            end = min(end, count) - 1
        these = by_length[begin:end]
        steps = torch.arange(longest, device=tiles.device)
        at = (starts[these, None] + steps).clamp_max_(len(gaussians) - 1)
        listed = gaussians.take(at).masked_fill_(steps >= lengths[these, None], none)
        groups.append(Group(these, listed))
        begin = end
    return groups


def _stable_order(keys: Tensor, count: int) -> Tensor:
    """What sorts small whole numbers and keeps the order of equal ones; on a CPU by NumPy's radix sort of 16 bits."""
    if keys.device.type == "cpu" and count < 1 << 16:
        return torch.from_numpy(keys.numpy().astype("uint16").argsort(kind="stable"))
    return torch.argsort(keys, stable=True)


def monomials(height: int, width: int, like: Tensor) -> Tensor:
    """1, x, y, x^2, x y, y^2 of a tile's pixels, (height width, 6), x and y from the tile's middle."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device) - (height - 1) / 2,
        torch.arange(width, dtype=like.dtype, device=like.device) - (width - 1) / 2,
        indexing="ij",
    )
    x, y = x.flatten(), y.flatten()
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y), 1)
