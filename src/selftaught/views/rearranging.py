"""Alterations that move pixels and can be undone exactly: cuts, tiles, scalings; and erasing.

For methods whose network sees a rearranged picture while its output is compared on the original grid (Robust-Depth,
arXiv 2307.08357). All take tensors (..., H, W), of any number of channels, at any scale of the same picture.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError

__all__ = [
    "GEOMETRIC",
    "Rearrangement",
    "cut_row",
    "draw_rearrangement",
    "erase",
    "rearrange",
    "scale_picture",
    "shuffle_tiles",
    "swap_parts",
    "undo_rearrangement",
    "unshuffle_tiles",
    "unswap_parts",
]

Kind = Literal["none", "tiling", "scale", "erase", "vertical"]
GEOMETRIC: tuple[Kind, ...] = ("tiling", "scale", "erase", "vertical")
"""The alterations that are drawn from."""


def cut_row(height: int, part: int, parts: int = 5, unit: int = 1) -> int:
    """The row where a picture is cut at ``part / parts`` of its height, a multiple of ``unit``.

    Raises:
        UserError: a part that isn't inside the picture, or a unit so large that no cut is.
    """
    row = round(height * part / parts / unit) * unit
    if not 0 < part < parts or not 0 < row < height:
        raise UserError(f"cut at {part}/{parts} of {height} rows in units of {unit}: no row inside the picture")
    return row


def swap_parts(x: Tensor, row: int) -> Tensor:
    """Cut (..., H, W) at a row and swap the two parts.

    Raises:
        UserError: a row outside 1..H-1.
    """
    if not 0 < row < x.shape[-2]:
        raise UserError(f"row {row}: it may be 1 to {x.shape[-2] - 1}")
    return x.roll(-row, -2)


def unswap_parts(x: Tensor, row: int) -> Tensor:
    """Undo :func:`swap_parts`: ``unswap_parts(swap_parts(x, row), row)`` is x."""
    return swap_parts(x, x.shape[-2] - row)


def shuffle_tiles(x: Tensor, order: Sequence[int], rows: int, columns: int) -> Tensor:
    """Cut (..., H, W) into tiles and lay them anew: place k gets tile ``order[k]``, counted row by row.

    Raises:
        UserError: tiles that don't divide the picture, or an order that is no permutation.
    """
    height, width = x.shape[-2:]
    if height % rows or width % columns:
        raise UserError(f"{rows} x {columns} tiles don't divide a picture of {height} x {width} pixels")
    if sorted(order) != list(range(rows * columns)):
        raise UserError(f"order {list(order)}: give each of 0 to {rows * columns - 1} once")
    lead = x.shape[:-2]
    h, w = height // rows, width // columns
    tiles = x.reshape(*lead, rows, h, columns, w).movedim(-2, -3).flatten(-4, -3)
    laid = tiles[..., list(order), :, :].unflatten(-3, (rows, columns))
    return laid.movedim(-3, -2).reshape(*lead, height, width)


def unshuffle_tiles(x: Tensor, order: Sequence[int], rows: int, columns: int) -> Tensor:
    """Undo :func:`shuffle_tiles` of the same order."""
    back = [0] * len(order)
    for place, tile in enumerate(order):
        back[tile] = place
    return shuffle_tiles(x, back, rows, columns)


def erase(x: Tensor, box: tuple[int, int, int, int], value: float = 0.0) -> Tensor:
    """(..., H, W) with the box (top, left, height, width) set to a value; x stays as it is."""
    top, left, height, width = box
    found = x.clone()
    found[..., top : top + height, left : left + width] = value
    return found


def scale_picture(x: Tensor, size: tuple[int, int], corner: tuple[int, int] = (0, 0), mode: str = "bilinear") -> Tensor:
    """(N, C, H, W) resized to ``size`` = (h, w), of which the window of H x W pixels at ``corner`` is kept.

    Where the resized picture is smaller, its tail is repeated: the last H - h rows and W - w columns follow again.
    ``size`` = (H, W) gives x itself.

    Raises:
        UserError: smaller than half the picture, larger in one way only, or a corner outside.
    """
    height, width = x.shape[-2:]
    h, w = size
    if (h, w) == (height, width):
        return x
    if 2 * h < height or 2 * w < width or (h - height) * (w - width) < 0:
        raise UserError(f"size {h} x {w}: both larger, or both smaller by at most a half, than {height} x {width}")
    options = {"align_corners": False} if mode == "bilinear" else {}
    made = F.interpolate(x, size=size, mode=mode, antialias=mode == "bilinear" and h < height, **options)
    top, left = corner
    if h >= height and w >= width:
        if not (0 <= top <= h - height and 0 <= left <= w - width):
            raise UserError(f"corner {corner}: outside a picture of {h} x {w} pixels")
        return made[..., top : top + height, left : left + width]
    made = F.pad(made, (0, width - w, 0, height - h))
    made[..., w:] = made[..., 2 * w - width : w].clone()
    made[..., h:, :] = made[..., 2 * h - height : h, :].clone()
    return made


@dataclasses.dataclass(frozen=True)
class Rearrangement:
    """One drawn alteration.

    Attributes:
        kind: "none", "tiling", "scale", "erase" or "vertical".
        row: of the cut (vertical).
        order: of the tiles (tiling), with their ``rows`` and ``columns``.
        rows: of tiles.
        columns: of tiles.
        box: that is erased: top, left, height, width.
        size: height and width after resizing (scale); of the full picture.
        corner: top and left of the window that is kept (scale up).
    """

    kind: Kind = "none"
    row: int = 0
    order: tuple[int, ...] = ()
    rows: int = 1
    columns: int = 1
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    size: tuple[int, int] = (0, 0)
    corner: tuple[int, int] = (0, 0)

    @property
    def shrinks(self) -> bool:
        """Whether the picture became smaller, its tail repeated."""
        return self.kind == "scale" and self.corner == (-1, -1)


_DOWN, _UP = (0.7, 0.9), (1.1, 2.0)


def draw_rearrangement(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    always: bool = False,
    kinds: Sequence[Kind] = GEOMETRIC,
    unit: int = 1,
) -> Rearrangement:
    """One of ``kinds``, drawn evenly; with probability a half none, unless ``always``.

    vertical: cut at w/5, w in 1..4. tiling: 2 or 3 rows, 2 or 4 columns. erase: area .015 to .1 of the picture, aspect
    .15 to 1.5. scale: with p = .5 down by .7 to .9, else up by 1.1 to 2 with a drawn window.

    Args:
        rng: of the draw.
        height: of the picture.
        width: of the picture.
        always: whether "none" is out (the picture is otherwise unaltered).
        kinds: enabled ones; empty: none.
        unit: cuts, sizes and corners are multiples of it, so that they fall on whole pixels at coarser scales.
    """
    if not kinds or not (always or rng.random() < 0.5):
        return Rearrangement()
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind == "vertical":
        return Rearrangement(kind, row=cut_row(height, int(rng.integers(1, 5)), unit=unit))
    if kind == "tiling":
        rows = [r for r in (2, 3) if height % (r * unit) == 0] or [1]
        columns = [c for c in (2, 4) if width % (c * unit) == 0] or [1]
        r, c = rows[int(rng.integers(len(rows)))], columns[int(rng.integers(len(columns)))]
        return Rearrangement(kind, order=tuple(rng.permutation(r * c).tolist()), rows=r, columns=c)
    if kind == "erase":
        return Rearrangement(kind, box=_box(rng, height, width))
    down = rng.random() < 0.5
    ratio = rng.uniform(*(_DOWN if down else _UP))
    h, w = (max(unit, round(side * ratio / unit) * unit) for side in (height, width))
    if down:
        return Rearrangement(kind, size=(min(h, height), min(w, width)), corner=(-1, -1))
    h, w = max(h, height), max(w, width)
    top, left = (int(rng.integers((big - side) // unit + 1)) * unit for big, side in ((h, height), (w, width)))
    return Rearrangement(kind, size=(h, w), corner=(top, left))


def _box(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    area, aspect = rng.uniform(0.015, 0.1) * height * width, rng.uniform(0.15, 1.5)
    h = min(height - 1, max(1, round(math.sqrt(area * aspect))))
    w = min(width - 1, max(1, round(math.sqrt(area / aspect))))
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


def rearrange(x: Tensor, change: Rearrangement, scale: int = 0) -> Tensor:
    """(N, C, H, W) at 1 / 2^scale of the picture's size, altered.

    Args:
        x: a picture or a map of it.
        change: drawn for the full picture.
        scale: of x.
    """
    if change.kind == "vertical":
        return swap_parts(x, change.row >> scale)
    if change.kind == "tiling":
        return shuffle_tiles(x, change.order, change.rows, change.columns)
    if change.kind == "erase":
        top, left, height, width = (value >> scale for value in change.box)
        return erase(x, (top, left, height, width))
    if change.kind == "scale":
        h, w = (side >> scale for side in change.size)
        corner = (max(0, change.corner[0]) >> scale, max(0, change.corner[1]) >> scale)
        return scale_picture(x, (h, w), corner)
    return x


def undo_rearrangement(x: Tensor, change: Rearrangement, scale: int = 0) -> Tensor:
    """Bring a map of the altered picture back to the original grid; a scaled or erased one stays as it is.

    What was scaled is compared on the scaled grid (see :func:`rearrange` for the other side), and an erased box hides
    a part without moving any.
    """
    if change.kind == "vertical":
        return unswap_parts(x, change.row >> scale)
    if change.kind == "tiling":
        return unshuffle_tiles(x, change.order, change.rows, change.columns)
    return x
