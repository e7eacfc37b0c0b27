"""Augmentation of whole batches of slices, as the global and local contrast of volumes has it (arXiv 2006.10511).

Functions of tensors (N, C, S, S) with values around [0, 1]; every draw comes from torch's generator, or one that is
given.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError

__all__ = [
    "affine_matrices",
    "augment_labelled",
    "context_swap",
    "crop_and_resize",
    "elastic_field",
    "mix_up",
    "paint_over",
    "random_crops",
    "shift_intensity",
    "warp",
]

_PAPER = 192
Generator = torch.Generator | None
KINDS = ("rotate", "scale", "flip", "turn", "none")


def _check(x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point() or not x.numel():
        raise UserError(f"slices are (N, C, H, W) of floating-point values, got {tuple(x.shape)} {x.dtype}")


def _uniform(low: float, high: float, *shape: int, like: Tensor, generator: Generator = None) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)


# ---- the contrast's views --------------------------------------------------------------------------------------------
def crop_and_resize(x: Tensor, corners: Tensor, side: int) -> Tensor:
    """Squares of ``side`` pixels, their upper left corners (N, 2) as row and column, resized to the slices' size
    (bilinear).

    Raises:
        UserError: a square that leaves the slice.
    """
    _check(x)
    if corners.shape != (len(x), 2) or int(corners.min()) < 0 or int(corners.max()) + side > min(x.shape[2:]):
        raise UserError(f"corners {tuple(corners.shape)} of squares of {side}: (N, 2) inside {tuple(x.shape[2:])}")
    parts = [one[:, r : r + side, c : c + side] for one, (r, c) in zip(x, corners.tolist(), strict=True)]
    return F.interpolate(torch.stack(parts), size=x.shape[2:], mode="bilinear", align_corners=False)


def random_crops(
    x: Tensor, *, side: int | None = None, low: int | None = None, high: int | None = None, generator: Generator = None
) -> Tensor:
    """A square crop of each slice by itself, resized to the slice's size.

    Args:
        x: (N, C, S, S).
        side: of the crop; None: 100 of 192 pixels.
        low: least row and column of its corner; None: 10 of 192.
        high: one beyond the largest; None: 70 of 192.
        generator: of the draws.
    """
    _check(x)
    share = x.shape[-1] / _PAPER
    side, low, high = (round(d * share) if v is None else v for v, d in ((side, 100), (low, 10), (high, 70)))
    corners = torch.randint(low, max(high, low + 1), (len(x), 2), generator=generator, device=x.device)
    return crop_and_resize(x, corners, side)


def shift_intensity(
    x: Tensor, *, brightness: float = 0.3, contrast: float = 0.3, low: float = 0.0, high: float = 1.5,
    generator: Generator = None,
) -> Tensor:  # fmt: skip
    """Brightness, then contrast about each slice's mean, then clipped; one draw of both for the whole batch.

    y = clip( (x + b - m) c + m, low, high ),   b ~ U(-brightness, brightness), c ~ U(1 - contrast, 1 + contrast), m the
    mean of each channel of x + b.
    """
    _check(x)
    x = x + _uniform(-brightness, brightness, like=x, generator=generator)
    mean = x.mean((2, 3), keepdim=True)
    return ((x - mean) * _uniform(1 - contrast, 1 + contrast, like=x, generator=generator) + mean).clamp(low, high)


# ---- annotated slices ------------------------------------------------------------------------------------------------
def affine_matrices(
    count: int, *, degrees: float = 15.0, scale: float = 0.05, like: Tensor, generator: Generator = None
) -> Tensor:
    """(count, 2, 2): for each slice one of a turn by up to ``degrees``, a scale of 1 +- ``scale``, a flip, a multiple
    of 45 degrees, or nothing, as likely as each other.
    """
    kind = torch.randint(len(KINDS), (count,), generator=generator, device=like.device)
    angle = _uniform(-degrees, degrees, count, like=like, generator=generator)
    eighth = torch.randint(8, (count,), generator=generator, device=like.device).to(like) * 45
    angle = torch.where(kind == 0, angle, torch.where(kind == 3, eighth, torch.zeros_like(angle))) * math.pi / 180
    size = torch.where(kind == 1, _uniform(1 - scale, 1 + scale, count, like=like, generator=generator), 1.0)
    mirror = torch.where(kind == 2, -1.0, 1.0).to(like)
    c, s = angle.cos() / size, angle.sin() / size
    return torch.stack([torch.stack([c * mirror, -s], 1), torch.stack([s * mirror, c], 1)], 1)


def elastic_field(
    count: int, side: int, *, points: int = 3, deviation: float = 5.0, like: Tensor, generator: Generator = None
) -> Tensor:
    """Smooth displacements (count, side, side, 2) in pixels, x before y: N(0, deviation^2) on points x points, bicubic
    between them.
    """
    drawn = torch.randn(count, 2, points, points, generator=generator, device=like.device, dtype=like.dtype) * deviation
    return F.interpolate(drawn, size=(side, side), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)


def warp(
    x: Tensor,
    matrix: Tensor | None = None,
    field: Tensor | None = None,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Tensor:
    """Slices (N, C, S, S) seen through a linear map about their middle and a field of displacements; zeros outside."""
    _check(x)
    eye = torch.eye(2, dtype=x.dtype, device=x.device).expand(len(x), 2, 2)
    whole = torch.cat([eye if matrix is None else matrix, torch.zeros_like(eye[:, :, :1])], dim=2)
    grid = F.affine_grid(whole, list(x.shape), align_corners=False)
    if field is not None:
        grid = grid + field * 2 / torch.tensor([x.shape[3], x.shape[2]], dtype=x.dtype, device=x.device)
    return F.grid_sample(x, grid, mode=mode, padding_mode="zeros", align_corners=False)


def augment_labelled(
    x: Tensor, mask: Tensor, *, degrees: float = 15.0, scale: float = 0.05, deviation: float | None = None,
    brightness: float = 0.0, contrast: float = 0.0, generator: Generator = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Slices and their masks, moved alike; the first r of the batch stay as they are, r drawn from 0 to N.

    Args:
        x: (N, C, S, S).
        mask: (N, S, S) int64; what comes in from outside is background.
        degrees: of small turns; see `affine_matrices`.
        scale: of changes of size.
        deviation: of the elastic field, in pixels; None: 5 of 192.
        brightness: largest shift of brightness; 0 as in the released code, 0.1 as it is configured there.
        contrast: largest change of contrast; 0, or 0.2.
        generator: of all draws.

    Raises:
        UserError: a mask that doesn't fit.
    """
    _check(x)
    if mask.shape != (len(x), *x.shape[2:]) or mask.dtype != torch.int64:
        raise UserError(f"masks need the shape {(len(x), *x.shape[2:])} of int64, got {tuple(mask.shape)} {mask.dtype}")
    side = x.shape[-1]
    matrix = affine_matrices(len(x), degrees=degrees, scale=scale, like=x, generator=generator)
    away = 5.0 * side / _PAPER if deviation is None else deviation
    field = elastic_field(len(x), side, deviation=away, like=x, generator=generator)
    moved, classes = warp(x, matrix, field), warp(mask[:, None].to(x), matrix, field, "nearest")[:, 0].round().long()
    if brightness or contrast:
        moved = shift_intensity(moved, brightness=brightness, contrast=contrast, generator=generator)
    first = int(torch.randint(len(x) + 1, (), generator=generator, device=x.device))
    return torch.cat([x[:first], moved[first:]]), torch.cat([mask[:first], classes[first:]])


def mix_up(
    x: Tensor, shares: Tensor, alpha: float = 0.2, *, share: float | None = None, generator: Generator = None
) -> tuple[Tensor, Tensor]:
    """Mixup: every slice and its shares of the classes mixed with those of another slice of the batch.

    x' = m x + (1 - m) x[p],  y' = m y + (1 - m) y[p],  m ~ Beta(alpha, alpha) once for the batch.

    Args:
        x: (N, C, S, S).
        shares: (N, K, S, S), one-hot masks.
        alpha: of the Beta distribution, above 0.
        share: m, in place of a draw.
        generator: of the partners; the Beta distribution draws from torch's own.
    """
    if alpha <= 0 or len(x) != len(shares):
        raise UserError(f"alpha={alpha:g} must be above 0, and {len(x)} slices need as many shares, not {len(shares)}")
    m = float(torch.distributions.Beta(alpha, alpha).sample()) if share is None else share
    other = torch.randperm(len(x), generator=generator, device=x.device)
    return m * x + (1 - m) * x[other], m * shares + (1 - m) * shares[other]


# ---- pretexts to compare with ----------------------------------------------------------------------------------------
def paint_over(x: Tensor, *, size: int | None = None, generator: Generator = None) -> Tensor:
    """Each slice with one square of zeros, for inpainting; None: a square of a third of the side."""
    _check(x)
    size = x.shape[-1] // 3 if size is None else size
    corners = torch.randint(x.shape[-1] - size + 1, (len(x), 2), generator=generator, device=x.device)
    y, z = torch.arange(x.shape[2], device=x.device), torch.arange(x.shape[3], device=x.device)
    rows = (y >= corners[:, :1]) & (y < corners[:, :1] + size)
    columns = (z >= corners[:, 1:]) & (z < corners[:, 1:] + size)
    return x.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0.0)


def context_swap(x: Tensor, *, pairs: int = 10, size: int | None = None, generator: Generator = None) -> Tensor:
    """Each slice with ``pairs`` pairs of small squares exchanged, for context restoration; None: an eighth of the
    side. Squares of one pair don't overlap; a draw that would is left out.
    """
    _check(x)
    size = max(1, x.shape[-1] // 8) if size is None else size
    places = torch.randint(x.shape[-1] - size + 1, (len(x), pairs, 2, 2), generator=generator, device=x.device)
    x = x.clone()
    for one, drawn in zip(x, places.tolist(), strict=True):
        for (r, c), (s, d) in drawn:
            if abs(r - s) >= size or abs(c - d) >= size:
                kept = one[:, r : r + size, c : c + size].clone()
                one[:, r : r + size, c : c + size] = one[:, s : s + size, d : d + size]
                one[:, s : s + size, d : d + size] = kept
    return x
