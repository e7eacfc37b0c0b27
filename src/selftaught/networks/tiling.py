"""Large images through a network in tiles, without visible seams and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from selftaught.errors import UserError

__all__ = ["tiled"]


def tiled(fn: Callable[[Tensor], Tensor], image: Tensor, *, tile: int, overlap: int, grid: int = 32) -> Tensor:
    """Apply an image-to-image function tile by tile.

    Every tile but those at the border of the image carries ``overlap`` pixels of context on each side, which are
    computed and thrown away. With ``overlap`` at least the receptive radius of ``fn`` the result equals ``fn(image)``:
    a border of the image stays a border of its tile, so zero padding falls on the same pixels. Tiles begin at multiples
    of ``grid`` (where one has room for that beside the context), so that strides and poolings fall on the same pixels
    as in the whole image; the last of a side that is no such multiple is shorter by what is missing. All others have
    one shape, no larger than the image's sides need at that number of tiles: 1024 pixels in tiles of 512 are three of
    384, not of 512.

    Args:
        fn: (N, C, h, w) to (N, C', s*h, s*w), with an integer s (1 for denoising, more for super-resolution).
        image: (N, C, H, W), or (C, H, W).
        tile: side in pixels of what ``fn`` sees at once, context included.
        overlap: context in pixels on each side.
        grid: tiles begin at multiples of this, and are made smaller only to one; 1 for a network that doesn't pool.

    Returns:
        (N, C', s*H, s*W), or (C', s*H, s*W), on the image's device.

    Raises:
        UserError: no room beside the context, or an image without pixels.
        ValueError: ``fn`` returns another size than an integer multiple of the tile's.
    """
    if overlap < 0 or tile <= 2 * overlap:
        raise UserError(f"tile={tile}: must be above twice overlap={overlap}; take a larger tile")
    if image.ndim == 3:
        return tiled(fn, image[None], tile=tile, overlap=overlap, grid=grid)[0]
    if image.ndim != 4 or 0 in image.shape:
        raise UserError(f"image of shape {tuple(image.shape)}: give (N, C, H, W) or (C, H, W) with pixels in it")
    rows, columns = (_spans(side, _fitting(side, tile, overlap, grid), overlap, grid) for side in image.shape[-2:])
    whole: Tensor | None = None
    scale = 1
    for top, bottom, first, last in rows:
        for left, right, begin, end in columns:
            part = fn(image[..., top:bottom, left:right].contiguous())
            if whole is None:
                scale = _scale(part, bottom - top, right - left)
                shape = (*part.shape[:2], scale * image.shape[-2], scale * image.shape[-1])
                whole = torch.empty(shape, dtype=part.dtype, device=part.device)
            kept = part[
                ..., scale * (first - top) : scale * (last - top), scale * (begin - left) : scale * (end - left)
            ]
            whole[..., scale * first : scale * last, scale * begin : scale * end] = kept
    assert whole is not None
    return whole


def _fitting(side: int, tile: int, overlap: int, grid: int) -> int:
    """The smallest multiple of ``grid`` whose tiles cover a side in as few as those of ``tile`` do."""
    if side <= tile:
        return tile
    count = -(-(side - 2 * overlap) // (tile - 2 * overlap))
    least = -(-(side - 2 * overlap) // count) + 2 * overlap
    return min(tile, -(-least // grid) * grid)


def _spans(side: int, tile: int, overlap: int, grid: int) -> list[tuple[int, int, int, int]]:
    """(start, stop) of every tile along one axis, and (first, last) of what is kept of it; these partition the axis."""
    if side <= tile:
        return [(0, side, 0, side)]
    step = grid if tile - 2 * overlap >= grid else 1
    end = -(-(side - tile) // step) * step
    spans: list[tuple[int, int, int, int]] = []
    kept = 0
    while kept < side:
        start = min(max(kept - overlap, 0) // step * step, end)
        stop = min(start + tile, side)
        last = side if stop == side else stop - overlap
        spans.append((start, stop, kept, last))
        kept = last
    return spans


def _scale(part: Tensor, height: int, width: int) -> int:
    scale = part.shape[-2] // height
    if part.shape[-2:] != (scale * height, scale * width) or scale < 1:
        raise ValueError(f"a {height}x{width} tile came back as {tuple(part.shape[-2:])}: not an integer multiple")
    return scale
