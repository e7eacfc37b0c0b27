"""Jigsaw puzzles of whole batches, on the device: cut into tiles, lay them in another order, ask for the order."""

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
