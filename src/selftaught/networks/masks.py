"""Which tokens are hidden: at random, in blocks, in units of several patches, or on a grid.

A mask is bool, True where a token is hidden. `keep_from_mask` turns one into the numbers of the visible tokens where
every sample hides equally many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError

__all__ = [
    "attention_masks",
    "blockwise_mask",
    "blockwise_masks",
    "drawn_ratio_masks",
    "grid_mask",
    "random_masking",
    "unit_masks",
]

_TRIES = 10


def random_masking(
    samples: int,
    tokens: int,
    ratio: float = 0.75,
    *,
    noise: Tensor | None = None,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """MAE's masking (He et al., arXiv 2111.06377): the tokens of the least noise stay, in each sample its own.

    Args:
        samples: N.
        tokens: L.
        ratio: share r that is hidden; int(L (1 - r)) tokens stay, at least one.
        noise: (N, L) to sort by; None draws it.
        device: where.
        generator: of the noise.

    Returns:
        keep (N, L') int64, the visible tokens in the order of their noise; mask (N, L) bool, True where hidden; restore
        (N, L) int64, which puts "visible first, then hidden" back in raster order.

    Raises:
        UserError: a ratio outside [0, 1), noise of another shape.
    """
    _check_ratio(ratio)
    if noise is None:
        noise = torch.rand(samples, tokens, device=device, generator=generator)
    if noise.shape != (samples, tokens):
        raise UserError(f"noise needs the shape ({samples}, {tokens}), got {tuple(noise.shape)}")
    visible = max(1, int(tokens * (1 - ratio) + 1e-6))
    shuffle = noise.argsort(dim=1)
    keep = shuffle[:, :visible]
    mask = torch.ones(samples, tokens, dtype=torch.bool, device=noise.device).scatter_(1, keep, False)
    return keep, mask, shuffle.argsort(dim=1)


def blockwise_mask(
    grid: Sequence[int],
    count: int,
    *,
    min_block: int = 16,
    max_block: int | None = None,
    aspect: float = 0.3,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """BEiT's mask (Bao et al., arXiv 2106.08254, algorithm 1): blocks are added until ``count`` tokens are hidden.

    A block's area is uniform in [``min_block``, what is left to hide], its aspect log-uniform in [``aspect``,
    1 / ``aspect``]; ten tries find a block that fits and hides something new, else the mask stays as it is.

    Args:
        grid: tokens along (rows, columns).
        count: most tokens to hide (BEiT: 75 of 14 x 14).
        min_block: least area of a block in tokens.
        max_block: largest; None leaves it to what is left.
        aspect: the flattest block.
        rng: source of chance; None draws a seed from torch's.

    Returns:
        (rows, columns) bool; at most ``count`` are True.

    Raises:
        UserError: a count that the grid doesn't have, blocks below one token, an aspect outside (0, 1].
    """
    rows, columns = grid
    if not 0 <= count <= rows * columns:
        raise UserError(f"count={count}: a grid of {rows}x{columns} tokens hides 0 to {rows * columns}")
    if min_block < 1 or (max_block is not None and max_block < min_block) or not 0 < aspect <= 1:
        raise UserError(
            f"min_block={min_block}, max_block={max_block}, aspect={aspect}: need 1 <= min <= max, 0 < a <= 1"
        )
    rng = _rng() if rng is None else rng
    mask = np.zeros((rows, columns), dtype=bool)
    while (left := count - int(mask.sum())) > 0:
        if not _add_block(mask, left, min_block, min(left, max_block or left), aspect, rng):
            break
    return torch.from_numpy(mask)


def _add_block(mask: np.ndarray, left: int, least: int, most: int, aspect: float, rng: np.random.Generator) -> bool:
    """Hide one more block; False where ten tries find none."""
    rows, columns = mask.shape
    for _ in range(_TRIES):
        area = rng.uniform(min(least, most), most)
        ratio = math.exp(rng.uniform(math.log(aspect), -math.log(aspect)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if not (0 < height < rows and 0 < width < columns):
            continue
        top, start = rng.integers(0, rows - height + 1), rng.integers(0, columns - width + 1)
        block = mask[top : top + height, start : start + width]
        if 0 < height * width - block.sum() <= left:
            block[:] = True
            return True
    return False


def blockwise_masks(
    samples: int,
    grid: Sequence[int],
    ratio: float = 0.4,
    *,
    min_block: int = 16,
    aspect: float = 0.3,
    exact: bool = True,
    device: torch.device | None = None,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """A `blockwise_mask` for each sample.

    Args:
        samples: N.
        grid: tokens along (rows, columns).
        ratio: share of the tokens to hide, in [0, 1).
        min_block: least area of a block in tokens; a smaller grid takes an eighth of it where that is less.
        aspect: the flattest block.
        exact: hide single tokens at random where blocks leave some of int(ratio L) open, so that all samples hide
            equally many.
        device: where.
        rng: source of chance; None draws a seed from torch's.

    Returns:
        (N, L) bool, True where hidden.

    Raises:
        UserError: a ratio outside [0, 1).
    """
    _check_ratio(ratio)
    rng = _rng() if rng is None else rng
    tokens = math.prod(grid)
    count, least = int(ratio * tokens + 1e-6), max(1, min(min_block, tokens // 8))
    found = torch.stack([blockwise_mask(grid, count, min_block=least, aspect=aspect, rng=rng) for _ in range(samples)])
    masks = found.flatten(1)
    if exact:
        for row in masks:
            open_ = (~row).nonzero()[:, 0].numpy()
            row[torch.from_numpy(rng.choice(open_, count - int(row.sum()), replace=False))] = True
    return masks.to(device)


def unit_masks(
    samples: int,
    grid: Sequence[int],
    ratio: float = 0.6,
    *,
    unit: int = 2,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """SimMIM's masks (Xie et al., arXiv 2111.09886): squares of ``unit`` x ``unit`` tokens at random.

    Returns:
        (N, L) bool; ceil(ratio units) squares of each sample are hidden.

    Raises:
        UserError: a ratio outside [0, 1), a grid that isn't a multiple of the unit.
    """
    _check_ratio(ratio)
    rows, columns = grid
    if unit < 1 or rows % unit or columns % unit:
        raise UserError(f"a grid of {rows}x{columns} tokens isn't a multiple of unit={unit}")
    coarse = rows // unit * (columns // unit)
    hidden = math.ceil(ratio * coarse - 1e-6)
    order = torch.rand(samples, coarse, device=device, generator=generator).argsort(dim=1)
    mask = torch.zeros(samples, coarse, dtype=torch.bool, device=device).scatter_(1, order[:, :hidden], True)
    square = mask.view(samples, rows // unit, columns // unit)
    return square.repeat_interleave(unit, dim=1).repeat_interleave(unit, dim=2).flatten(1)


def attention_masks(attention: Tensor, ratio: float = 0.4) -> Tensor:
    """Hide what is attended most (AttMask-High, Kakogeorgiou et al., ECCV 2022, arXiv 2203.12719).

    Args:
        attention: (N, heads, L) weights of the class token over the patches.
        ratio: share of the patches to hide, in [0, 1).

    Returns:
        (N, L) bool; the int(ratio L) patches of the largest mean over heads are hidden.

    Raises:
        UserError: a ratio outside [0, 1), another shape.
    """
    _check_ratio(ratio)
    if attention.dim() != 3:
        raise UserError(f"attention needs the shape (samples, heads, tokens), got {tuple(attention.shape)}")
    mean = attention.detach().float().mean(1)
    top = mean.topk(int(ratio * mean.shape[1] + 1e-6), dim=1).indices
    return torch.zeros_like(mean, dtype=torch.bool).scatter_(1, top, True)


def drawn_ratio_masks(
    samples: int,
    grid: Sequence[int],
    ratio: float = 0.3,
    *,
    variance: float = 0.2,
    probability: float = 0.5,
    blockwise: bool = True,
    device: torch.device | None = None,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """iBOT's masks (Zhou et al., arXiv 2111.07832): each image is whole, or has a ratio of its own hidden in blocks.

    Args:
        samples: N.
        grid: tokens along (rows, columns).
        ratio: middle of the ratios, in [0, 1).
        variance: a ratio is uniform in [ratio - variance, ratio + variance].
        probability: share of the images that are masked at all.
        blockwise: blocks of at least (min(rows, columns) // 3)^2 tokens; off: single tokens.
        device: where.
        rng: source of chance; None draws a seed from torch's.

    Returns:
        (N, L) bool, True where hidden; unequal numbers in each sample.

    Raises:
        UserError: ratios outside [0, 1), a probability outside [0, 1].
    """
    _check_ratio(ratio)
    if not 0 <= variance <= min(ratio, 1 - ratio) or not 0 <= probability <= 1:
        raise UserError(f"variance={variance}, probability={probability}: ratio and probability must stay in [0, 1]")
    rng = _rng() if rng is None else rng
    least, tokens = max(1, (min(grid) // 3) ** 2), math.prod(grid)
    found = torch.zeros(samples, tokens, dtype=torch.bool)
    for row in found:
        if rng.random() >= probability:
            continue
        count = int(rng.uniform(ratio - variance, ratio + variance) * tokens)
        if blockwise:
            row[:] = blockwise_mask(grid, count, min_block=least, rng=rng).flatten()
        else:
            row[torch.from_numpy(rng.permutation(tokens)[:count])] = True
    return found.to(device)


def grid_mask(samples: int, grid: Sequence[int], *, device: torch.device | None = None) -> Tensor:
    """The regular mask of MAE's ablation: of every 2 x 2 tokens the first stays, so that 75 % are hidden.

    Returns:
        (N, L) bool, the same for all samples.
    """
    rows, columns = (torch.arange(n, device=device) % 2 == 0 for n in grid)
    return ~(rows[:, None] & columns).flatten().expand(samples, -1)


def _check_ratio(ratio: float) -> None:
    if not 0 <= ratio < 1:
        raise UserError(f"mask ratio {ratio}: give a share in [0, 1)")


def _rng() -> np.random.Generator:
    """Seeded from torch's own stream, which a checkpoint keeps."""
    return np.random.default_rng(int(torch.randint(2**62, ())))
