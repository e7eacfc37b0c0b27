"""Patches and tokens: cutting samples into patches, which tokens a network sees, and where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = [
    "check_keep",
    "keep_from_mask",
    "largest_patch",
    "patchify",
    "random_keep",
    "region_keep",
    "sincos_positions",
    "sinusoid_positions",
    "token_grid",
    "unpatchify",
    "visible_first",
]

POSITIONS = ("sinusoid", "sincos", "learnt")
LEAST_SIDE = 7  # patches along a side, at least: a transformer with fewer sees next to no geometry


# ---- patches ---------------------------------------------------------------------------------------------------------
def patchify(x: Tensor, patch: Sequence[int], *, channels_last: bool = False) -> Tensor:
    """Cut samples into patches, in raster order.

    Args:
        x: (N, C, *size): images (N, C, H, W), clips (N, C, T, H, W), volumes (N, C, D, H, W).
        patch: length of a patch along each axis of ``size``.
        channels_last: pixel after pixel with its channels (row, column, channel), as MAE's code has it.

    Returns:
        (N, L, C P): pixels of each patch, channel after channel, each in raster order (as a convolution's weights are).

    Raises:
        UserError: another number of axes, or a size that isn't a multiple of the patch.
    """
    grid = token_grid(x.shape[2:], patch)
    axes = len(grid)
    split = [n for pair in zip(grid, patch, strict=True) for n in pair]
    x = x.reshape(*x.shape[:2], *split)
    places, pixels = range(2, 2 + 2 * axes, 2), range(3, 3 + 2 * axes, 2)
    inner = (*pixels, 1) if channels_last else (1, *pixels)
    return x.permute(0, *places, *inner).flatten(1 + axes).flatten(1, axes)


def unpatchify(patches: Tensor, patch: Sequence[int], size: Sequence[int], *, channels_last: bool = False) -> Tensor:
    """Put patches (N, L, C P) back together: (N, C, *size). The inverse of `patchify`.

    Raises:
        UserError: the patches don't fill ``size``.
    """
    grid, axes = token_grid(size, patch), len(size)
    if patches.dim() != 3 or patches.shape[1] != math.prod(grid) or patches.shape[2] % math.prod(patch):
        raise UserError(f"patches of shape {tuple(patches.shape)} don't fill {'x'.join(map(str, size))}")
    if channels_last:
        patches = patches.unflatten(2, (math.prod(patch), -1)).transpose(2, 3)
    x = patches.reshape(len(patches), *grid, -1, *patch)
    order = [n for axis in range(axes) for n in (1 + axis, 2 + axes + axis)]
    return x.permute(0, 1 + axes, *order).reshape(len(patches), -1, *size)


def token_grid(size: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """Tokens along each axis.

    Raises:
        UserError: a size that isn't a multiple of the patch.
    """
    if len(size) != len(patch) or any(p < 1 or s < p or s % p for s, p in zip(size, patch, strict=True)):
        shown, parts = "x".join(map(str, size)), "x".join(map(str, patch))
        raise UserError(f"size {shown} isn't a multiple of the patch {parts}")
    return tuple(s // p for s, p in zip(size, patch, strict=True))


def largest_patch(name: str, image_size: int, largest: int = 16) -> int:
    """Side of the patches for an image size: the largest up to ``largest`` that divides it and leaves 7 or more a side.

    Raises:
        UserError: none does; it names the encoder ``name``.
    """
    for patch in range(largest, 1, -1):
        if image_size % patch == 0 and image_size // patch >= LEAST_SIDE:
            return patch
    raise UserError(
        f"encoder={name}: no patch of 2 to {largest} pixels divides image_size={image_size} into {LEAST_SIDE} or "
        "more a side; choose another size, or an encoder without patches"
    )


# ---- which tokens ----------------------------------------------------------------------------------------------------
def keep_from_mask(mask: Tensor) -> Tensor:
    """Numbers of the visible tokens, ascending.

    Args:
        mask: (N, L) bool, True where hidden; every sample hides equally many and shows at least one.

    Returns:
        (N, L_visible) int64, for ``tokens(x, keep=...)``.

    Raises:
        UserError: samples with unequal numbers of visible tokens, none visible, a mask that isn't bool.
    """
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise UserError(f"a mask needs the shape (batch, tokens) and type bool, got {tuple(mask.shape)} {mask.dtype}")
    counts = (~mask).sum(1)
    least, most = (int(n) for n in counts.aminmax())
    if least != most or not least:
        raise UserError(f"masks show {least} to {most} tokens: every sample needs the same number, at least one")
    return (~mask).nonzero()[:, 1].view(len(mask), least)


def random_keep(
    samples: int,
    tokens: int,
    ratio: float,
    *,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Numbers of the tokens that stay visible when a share ``ratio`` is hidden at random, in each sample its own.

    Returns:
        (samples, tokens - floor(ratio tokens)) int64, ascending; at least one token.

    Raises:
        UserError: a ratio outside [0, 1).
    """
    if not 0 <= ratio < 1:
        raise UserError(f"mask ratio {ratio}: give a share in [0, 1)")
    visible = max(1, tokens - int(ratio * tokens + 1e-6))
    noise = torch.rand(samples, tokens, device=device, generator=generator)
    return noise.topk(visible, dim=1, largest=False).indices.sort(dim=1).values


def region_keep(samples: int, grid: Sequence[int], ratio: float, *, device: torch.device | None = None) -> Tensor:
    """Numbers of the tokens that stay visible when one region is hidden: those nearest to a place drawn in each sample.

    Args:
        samples: N.
        grid: tokens along (rows, columns), or (time, rows, columns): the region is then the same at every time step.
        ratio: share of the tokens that is hidden, in [0, 1).

    Returns:
        (samples, tokens - floor(ratio tokens of a time step) time steps) int64, ascending.

    Raises:
        UserError: a ratio outside [0, 1).
    """
    if not 0 <= ratio < 1:
        raise UserError(f"mask ratio {ratio}: give a share in [0, 1)")
    rows, columns = grid[-2:]
    steps, place = math.prod(grid[:-2]), rows * columns
    y, x = (n.flatten().to(device) for n in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    centre = torch.rand(samples, 2, device=device)
    distance = ((y - centre[:, :1] * (rows - 1)) / rows) ** 2 + ((x - centre[:, 1:] * (columns - 1)) / columns) ** 2
    visible = place - int(ratio * place + 1e-6)
    keep = distance.topk(visible, dim=1).indices.sort(dim=1).values
    return (keep[:, None] + place * torch.arange(steps, device=device)[:, None]).flatten(1)


def visible_first(keep: Tensor, tokens: int) -> Tensor:
    """All token numbers, the visible ones first, then the hidden ones in raster order: (N, L) int64."""
    mask = torch.ones(len(keep), tokens, dtype=torch.bool, device=keep.device).scatter_(1, keep, False)
    return torch.cat([keep, mask.nonzero()[:, 1].view(len(keep), -1)], dim=1)


def check_keep(keep: Tensor, samples: int) -> None:
    """Refuse numbers of visible tokens that aren't (V N, L') int64 for N samples."""
    if keep.dim() != 2 or keep.dtype != torch.int64 or not len(keep) or len(keep) % samples or not keep.shape[1]:
        raise UserError(
            f"keep needs the shape (views x {samples} samples, visible tokens) and type int64, "
            f"got {tuple(keep.shape)} {keep.dtype}"
        )


# ---- positions -------------------------------------------------------------------------------------------------------
def sinusoid_positions(count: int, dim: int) -> Tensor:
    """The fixed table of the first transformer, over token numbers: sine and cosine in turns (VideoMAE takes it).

        e[p, 2i] = sin(p / 10000^(2i / dim)),    e[p, 2i + 1] = cos(p / 10000^(2i / dim))

    Returns:
        (count, dim) float32.
    """
    index = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (2 * (index // 2) / dim)
    return torch.where(index % 2 == 0, angle.sin(), angle.cos()).float()


def sincos_positions(grid: Sequence[int], dim: int) -> Tensor:
    """The fixed table over the axes of a grid: every axis has an equal part of the width, the last axis the first.

    A part of width w for coordinate p is [sin(p o_0), sin(p o_1) ..., cos(p o_0) ...] with o_i = 10000^(-2i / w): for
    two axes the table of MAE (arXiv 2111.06377). A width that doesn't divide by twice the axes ends in zeros.

    Args:
        grid: tokens along each axis.
        dim: width, at least twice the number of axes.

    Returns:
        (L, dim) float32, L the product of ``grid``, in raster order.

    Raises:
        UserError: too narrow.
    """
    half = dim // (2 * len(grid))
    if not half:
        raise UserError(f"width {dim} is too small for positions along {len(grid)} axes")
    frequencies = 10000 ** -(torch.arange(half, dtype=torch.float64) / half)
    places = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in reversed(places)]
    table = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    return F.pad(table, (0, dim - table.shape[1])).float()


def positions_table(kind: str, grid: Sequence[int], dim: int) -> Tensor:
    """The table (L, dim) of one kind: "sinusoid", "sincos" or "learnt" (random, for a parameter).

    Raises:
        UserError: an unknown kind.
    """
    if kind not in POSITIONS:
        raise UserError(f"positions={kind}: choose {', '.join(POSITIONS)}")
    if kind == "learnt":
        return nn.init.trunc_normal_(torch.empty(math.prod(grid), dim), std=0.02)
    return sincos_positions(grid, dim) if kind == "sincos" else sinusoid_positions(math.prod(grid), dim)
