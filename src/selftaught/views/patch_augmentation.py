"""Patches of a batch of views changed, the rest left as it is: blur, noise or colour within a patch mask (GLARE).

The whole image is changed once and then composed by the mask, so that a patch's border sees what really lies beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError

__all__ = ["augment_patches", "blur_batch", "patch_pixels"]

How = Literal["blur", "noise", "colour", "none"]
_SIDE = 224


def patch_pixels(mask: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """A mask of patches (N, L) bool, in raster order on a grid (rows, columns), as pixels (N, 1, H, W) bool.

    Raises:
        UserError: a mask of another type or number of patches, a size that is no multiple of the grid.
    """
    rows, columns = grid
    height, width = size
    if mask.dtype != torch.bool or mask.dim() != 2 or mask.shape[1] != rows * columns:
        raise UserError(f"a patch mask needs (N, {rows * columns}) bool, got {tuple(mask.shape)} {mask.dtype}")
    if height % rows or width % columns:
        raise UserError(f"views of {height} x {width} pixels don't divide into {rows} x {columns} patches")
    cells = mask.view(len(mask), 1, rows, columns)
    return cells.repeat_interleave(height // rows, 2).repeat_interleave(width // columns, 3)


def blur_batch(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of images (N, C, H, W), each with its own deviation in pixels (N,); mirrored at the borders."""
    n, channels, height, width = x.shape
    if sigma.shape != (n,) or not bool((sigma > 0).all()):
        raise UserError(f"sigma needs a deviation above 0 for each of {n} images, got {tuple(sigma.shape)}")
    radius = max(1, min(int(3 * float(sigma.max()) + 0.5), min(height, width) - 1))
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernels = torch.exp(-0.5 * (offsets / sigma.to(x)[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(x.reshape(1, n * channels, height, width), (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernels[:, None, None, :], groups=n * channels)
    return F.conv2d(flat, kernels[:, None, :, None], groups=n * channels).view_as(x)


def augment_patches(
    x: Tensor, mask: Tensor, grid: Sequence[int], *, how: How = "blur", sigma: tuple[float, float] = (1.0, 4.0)
) -> Tensor:
    """Views with the masked patches changed.

    Args:
        x: (N, C, H, W), normalised.
        mask: (N, L) bool, True where a patch is changed.
        grid: rows and columns of patches.
        how: "blur" (deviation uniform in ``sigma``), "noise" (Gaussian, deviation 0.5), "colour" (every channel scaled
            by 1 +- 0.4 and shifted by +- 0.4), or "none".
        sigma: pixels of a view of 224; smaller views take as much less.

    Raises:
        UserError: shapes that don't fit, another ``how``.
    """
    if x.dim() != 4 or len(x) != len(mask):
        raise UserError(f"views (N, C, H, W) and masks (N, L) don't fit: {tuple(x.shape)}, {tuple(mask.shape)}")
    inside = patch_pixels(mask, grid, x.shape[2:])
    if how == "none":
        return x
    n, channels = x.shape[:2]
    if how == "blur":
        low, high = (value * min(x.shape[2:]) / _SIDE for value in sigma)
        changed = blur_batch(x, low + (high - low) * torch.rand(n, device=x.device))
    elif how == "noise":
        changed = x + 0.5 * torch.randn_like(x)
    elif how == "colour":
        draws = 0.8 * torch.rand(2, n, channels, 1, 1, device=x.device, dtype=x.dtype) - 0.4
        changed = x * (1 + draws[0]) + draws[1]
    else:
        raise UserError(f"patch augmentation {how!r}: choose blur, noise, colour or none")
    return torch.where(inside, changed, x)
