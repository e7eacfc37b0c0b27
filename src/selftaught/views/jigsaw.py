"""Jigsaw puzzles of whole batches, on the device: cut into tiles, lay them in another order, ask for the order.

Tiles with a gap between them (`inner_crops`) and tiles without their colours keep a network from solving the puzzle by
lines that go on over an edge, or by the colour fringes of the lens.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations as all_orders

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from selftaught.errors import UserError

__all__: list[str] = []  # reached as views.jigsaw.NAME


@lru_cache(maxsize=8)
def _orders(count: int, tiles: int) -> np.ndarray:
    everything = np.array(list(all_orders(range(tiles))), dtype=np.int8)
    if not 1 <= count <= len(everything):
        raise UserError(f"{count} orders of {tiles} tiles: there are {len(everything)}; ask for 1 or more of them")
    chosen = [0]
    nearest = np.full(len(everything), tiles + 1)
    total = np.zeros(len(everything), dtype=np.int64)
    while len(chosen) < count:
        distance = (everything != everything[chosen[-1]]).sum(1)
        nearest, total = np.minimum(nearest, distance), total + distance
        chosen.append(int(np.lexsort((-total, -nearest))[0]))
    return everything[chosen].astype(np.int64)


def permutations(count: int = 35, tiles: int = 9) -> Tensor:
    """Orders of tiles that are far from one another: the first is the identity.

    Each next one has, of all orders, the largest Hamming distance to the nearest one chosen before; among equals the
    largest sum of distances, then the first in lexical order (after Noroozi and Favaro, ECCV 2016).

    Args:
        count: how many; 35 in ScatSimCLR.
        tiles: 9 at most, since all orders are looked at.

    Returns:
        (count, tiles) int64.

    Raises:
        UserError: fewer than 1 or more than there are; fewer than 2 or more than 9 tiles.
    """
    if not 2 <= tiles <= 9:
        raise UserError(f"orders of {tiles} tiles: give 2 to 9")
    return torch.from_numpy(_orders(count, tiles).copy())


def cut(images: Tensor, grid: int = 3, size: int | None = None) -> Tensor:
    """Cut images into grid x grid tiles and enlarge each, bilinearly and on its own: nothing leaks over an edge.

    Args:
        images: (N, C, H, W) float; what is left of sides that ``grid`` does not divide is cut off at the far end.
        grid: tiles along a side.
        size: side of the tiles that come out; None is the side of the image.

    Returns:
        (N, grid^2, C, size, size), row by row.

    Raises:
        UserError: images smaller than the grid.
    """
    n, channels, height, width = images.shape
    h, w = height // grid, width // grid
    if min(h, w) < 1:
        raise UserError(f"jigsaw: images of {height} x {width} have no {grid} x {grid} tiles; use larger ones")
    tiles = images[:, :, : h * grid, : w * grid].reshape(n, channels, grid, h, grid, w)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(n * grid**2, channels, h, w)
    side = size or height
    return interpolate(tiles, (side, side), mode="bilinear", antialias=False).view(n, grid**2, channels, side, side)


def shuffle(tiles: Tensor, order: Tensor) -> Tensor:
    """Lay the tiles of every image in an order of its own: place p gets tile ``order[n, p]``.

    Args:
        tiles: (N, T, ...).
        order: (N, T) int64.

    Returns:
        (N, T, ...).
    """
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], order]


# ---- tiles that give nothing away ----------------------------------------------------------------------------------
def tile_side(side: int, grid: int = 3, patch: int = 1) -> int:
    """Side of the tiles that `inner_crops` cuts out of cells of ``side // grid`` pixels: 64 of 75, as in the paper.

    Of a transformer with patches of ``patch`` pixels the largest multiple that leaves a gap.

    Raises:
        UserError: the cells are too small for a tile and a gap.
    """
    cell = side // grid
    tile = round(cell * 64 / 75) if patch == 1 else (cell - 1) // patch * patch
    if not 1 <= tile < cell:
        raise UserError(
            f"image_size={side}: a {grid} x {grid} puzzle has cells of {cell} pixels, too few for tiles with a gap "
            f"(patch {patch}); use larger images or smaller patches"
        )
    return tile


def inner_crops(images: Tensor, grid: int, tile: int, *, generator: torch.Generator | None = None) -> Tensor:
    """One tile out of each of grid x grid cells, at a place drawn evenly within its cell: neighbours have a gap.

    After Noroozi and Favaro (ECCV 2016, arXiv 1603.09246): tiles of 64 pixels out of cells of 75.

    Args:
        images: (N, C, H, W); what is left of sides that ``grid`` does not divide is cut off at the far end.
        grid: cells along a side.
        tile: side of a tile in pixels, at most that of a cell.
        generator: of the places, on the images' device; None is torch's global one.

    Returns:
        (N, grid^2, C, tile, tile), row by row.

    Raises:
        UserError: tiles larger than the cells.
    """
    n, _, height, width = images.shape
    h, w = height // grid, width // grid
    if not 1 <= tile <= min(h, w):
        raise UserError(f"tiles of {tile} pixels don't fit into cells of {h} x {w}; give 1 to {min(h, w)}")
    u = torch.rand(2, n, grid**2, device=images.device, generator=generator)
    cells = torch.arange(grid, device=images.device)
    within = torch.arange(tile, device=images.device)
    top = (u[0] * (h - tile + 1)).long() + (cells * h).repeat_interleave(grid)
    left = (u[1] * (w - tile + 1)).long() + (cells * w).repeat(grid)
    rows, columns = top[..., None] + within, left[..., None] + within
    sample = torch.arange(n, device=images.device)[:, None, None, None]
    found = images.permute(0, 2, 3, 1)[sample, rows[..., :, None], columns[..., None, :]]
    return found.permute(0, 1, 4, 2, 3)


def assemble(tiles: Tensor, grid: int = 3) -> Tensor:
    """Lay tiles (N, grid^2, C, t, t), row by row, side by side: (N, C, grid t, grid t)."""
    n, count, channels, side, _ = tiles.shape
    if count != grid**2:
        raise UserError(f"{count} tiles don't fill a grid of {grid} x {grid}")
    placed = tiles.reshape(n, grid, grid, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    return placed.reshape(n, channels, grid * side, grid * side)


def standardised(tiles: Tensor, eps: float = 1e-6) -> Tensor:
    """Each tile (..., C, t, t) with mean 0 and deviation 1 per channel, so that brightness tells no neighbours."""
    mean, deviation = tiles.mean((-2, -1), keepdim=True), tiles.std((-2, -1), keepdim=True, correction=0)
    return (tiles - mean) / (deviation + eps)


def drop_colours(tiles: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """One channel of each tile stays; the others become noise with a hundredth of its deviation (colour dropping).

    Doersch, Gupta and Efros (ICCV 2015, arXiv 1505.05192, section 3.1), against chromatic aberration.

    Args:
        tiles: (N, T, C, t, t) floating point; with one channel they come back as they are.
        generator: see `inner_crops`.
    """
    channels = tiles.shape[2]
    if channels == 1:
        return tiles
    u = torch.rand(*tiles.shape[:2], device=tiles.device, generator=generator)
    kept = (u * channels).long()[:, :, None, None, None]
    stays = torch.arange(channels, device=tiles.device)[:, None, None] == kept
    chosen = tiles.gather(2, kept.expand(-1, -1, 1, *tiles.shape[3:]))
    noise = torch.randn(tiles.shape, device=tiles.device, generator=generator).to(tiles.dtype)
    return torch.where(stays, tiles, noise * chosen.std((-2, -1), keepdim=True, correction=0) / 100)


def project_colours(images: Tensor) -> Tensor:
    """RGB without its green-magenta axis a = (-1, 2, -1): x (I - a^T a / (a a^T)) of every pixel.

    Doersch et al. (arXiv 1505.05192, section 3.1): the other way against chromatic aberration.

    Args:
        images: (..., 3, H, W) floating point.

    Raises:
        UserError: another number of channels.
    """
    if images.shape[-3] != 3:
        raise UserError(f"the colour projection needs 3 channels, the images have {images.shape[-3]}; use drop or keep")
    a = images.new_tensor([-1.0, 2.0, -1.0])
    matrix = torch.eye(3, device=images.device, dtype=images.dtype) - a[:, None] * a / a.square().sum()
    return torch.einsum("...chw,dc->...dhw", images, matrix)
