"""Heads that give every pixel a class from an encoder's feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["UPerHead"]

_SCALES = (4.0, 2.0, 1.0, 0.5)


class UPerHead(nn.Module):
    """UperNet's head: pooled context over the coarsest map, a pyramid from coarse to fine, all of it fused.

    A network of one resolution, such as a ViT, gives one map, of which four of 4, 2, 1 and 1/2 times its size are made,
    as they are for detection with plain ViTs. Xiao et al. 2018, arXiv 1807.10221; Li et al. 2022, arXiv 2203.16527.

    Args:
        widths: channels of each map, fine to coarse; one number for a single map.
        classes: K.
        channels: width inside, 512 in the paper.
        bins: sides of the pooled grids.

    Raises:
        UserError: no map, or a number below 1.
    """

    def __init__(
        self, widths: int | Sequence[int], classes: int, *, channels: int = 128, bins: Sequence[int] = (1, 2, 3, 6)
    ) -> None:
        super().__init__()
        self.single = isinstance(widths, int)
        found = [widths] * len(_SCALES) if isinstance(widths, int) else list(widths)
        if not found or min([*found, classes, channels, *bins]) < 1:
            raise UserError(f"UPerHead: widths {found}, {classes} classes, {channels} channels: each must be 1 or more")
        self.bins = tuple(bins)
        self.lateral = nn.ModuleList(_conv(width, channels, 1) for width in found[:-1])
        self.pooled = nn.ModuleList(_conv(found[-1], channels, 1) for _ in bins)
        self.context = _conv(found[-1] + len(bins) * channels, channels, 3)
        self.smooth = nn.ModuleList(_conv(channels, channels, 3) for _ in found[:-1])
        self.fuse = _conv(len(found) * channels, channels, 3)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """Maps (N, F, h, w), fine to coarse, or a single one -> class scores (N, K, h', w'), as fine as the finest."""
        if isinstance(maps, Tensor):
            maps = [_scaled(maps, scale) for scale in _SCALES] if self.single else [maps]
        if len(maps) != len(self.lateral) + 1:
            raise UserError(f"UPerHead: made for {len(self.lateral) + 1} maps, got {len(maps)}")
        levels = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=False)]
        levels.append(self._context(maps[-1]))
        for i in range(len(levels) - 2, -1, -1):
            levels[i] = levels[i] + _to(levels[i + 1], levels[i])
        smooth = [conv(x) for conv, x in zip(self.smooth, levels, strict=False)] + [levels[-1]]
        return self.classify(self.fuse(torch.cat([_to(x, smooth[0]) for x in smooth], 1)))

    def _context(self, x: Tensor) -> Tensor:
        """Averages over grids of several sizes beside the map itself."""
        seen = [_to(conv(F.adaptive_avg_pool2d(x, side)), x) for side, conv in zip(self.bins, self.pooled, strict=True)]
        return self.context(torch.cat([x, *seen], 1))


def _conv(width: int, out: int, side: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(width, out, side, padding=side // 2, bias=False), nn.GroupNorm(1, out), nn.ReLU())


def _to(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def _scaled(x: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return x
    height, width = (max(1, round(scale * side)) for side in x.shape[2:])
    size = (height, width)
    return F.adaptive_avg_pool2d(x, size) if scale < 1 else F.interpolate(x, size=size, mode="bilinear")
