"""Heads of the video pretexts: the order of clips (VCOP), rate and completion (PRP)."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from selftaught.errors import UserError

__all__ = ["PRPClassifier", "PRPDecoder", "VCOPHead"]


class VCOPHead(nn.Module):
    """Which order n clips are in: every pair through one layer, then all pairs through another (VCOP, CVPR 2019).

    For i < j: h_ij = ReLU(W [f_i; f_j]), W shared; the logits of the n! orders are a linear layer of all n (n - 1) / 2
    of them, after dropout.

    Args:
        dim: D of a clip's features.
        clips: n, 2 or more.
        hidden: width of h_ij (default 512).
        dropout: share that is dropped (default 0.5).

    Raises:
        UserError: less than two clips, or more than 6.
    """

    def __init__(self, dim: int, clips: int = 3, hidden: int = 512, dropout: float = 0.5) -> None:
        super().__init__()
        if not 2 <= clips <= 6:
            raise UserError(f"clips={clips}: 2 to 6 can be put in order")
        self.clips, self.pairs = clips, list(combinations(range(clips), 2))
        self.pair = nn.Linear(2 * dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden * len(self.pairs), math.factorial(clips))

    def forward(self, features: Tensor) -> Tensor:
        """(N, n, D) features of the clips as they are shown -> (N, n!) logits."""
        if features.ndim != 3 or features.shape[1] != self.clips:
            raise UserError(f"VCOPHead: features (N, {self.clips}, D), got {tuple(features.shape)}")
        joined = [self.pair(torch.cat([features[:, i], features[:, j]], dim=1)).relu() for i, j in self.pairs]
        return self.out(self.dropout(torch.cat(joined, dim=1)))


class PRPClassifier(nn.Module):
    """Which rate a clip was sampled at: a convolution of the last map, the mean, a linear layer (PRP, CVPR 2020).

    Args:
        dim: F channels of the map.
        rates: how many there are (default 4).
        width: of the convolution (default 512).
    """

    def __init__(self, dim: int, rates: int = 4, width: int = 512) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv3d(dim, width, 3, padding=1, bias=False), nn.BatchNorm3d(width), nn.ReLU())
        self.out = nn.Linear(width, rates)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, F, t, h, w) -> (N, rates) logits."""
        return self.out(self.conv(maps).mean((2, 3, 4)))


class PRPDecoder(nn.Module):
    """The clip at twice its rate out of the last map (PRP): convolution, three times up, transposed convolution, out.

    Each step up doubles time, height and width: a map of 2 x 7 x 7 becomes 32 x 112 x 112. For an encoder that reduces
    less, later steps leave an axis as it is; what is left of a difference is resized.

    Args:
        dim: F channels of the map.
        channels: C of a frame.
        width: of the first convolution (default 512); the steps up have a half, a quarter and an eighth of it.
        growth: how many times longer, and larger, the result is than the map (default 16 and 16).
    """

    def __init__(
        self, dim: int, channels: int = 3, width: int = 512, growth: tuple[float, float] = (16.0, 16.0)
    ) -> None:
        super().__init__()
        widths = [width, width // 2, width // 4, width // 8]
        if widths[-1] < 1 or channels < 1:
            raise UserError(f"PRPDecoder: width={width} must be at least 8, channels={channels} at least 1")
        parts: list[nn.Module] = [nn.Conv3d(dim, width, 3, padding=1, bias=False), nn.BatchNorm3d(width), nn.ReLU()]
        doublings = [max(0, round(math.log2(max(times, 1)))) for times in growth]
        for step, (inside, out) in enumerate(pairwise(widths)):
            longer, larger = (2.0 if step < count else 1.0 for count in doublings)
            up = nn.Upsample(scale_factor=(longer, larger, larger), mode="trilinear", align_corners=False)
            parts += [up, nn.Conv3d(inside, out, 3, padding=1, bias=False), nn.BatchNorm3d(out), nn.ReLU()]
        last, (time, space) = widths[-1], (count > 3 for count in doublings)
        kernel = (4 if time else 3, 4 if space else 3, 4 if space else 3)
        stride = (2 if time else 1, 2 if space else 1, 2 if space else 1)
        parts += [nn.ConvTranspose3d(last, last, kernel, stride, 1, bias=False), nn.BatchNorm3d(last), nn.ReLU()]
        self.body = nn.Sequential(*parts, nn.Conv3d(last, channels, 3, padding=1))

    def forward(self, maps: Tensor, size: tuple[int, int, int]) -> Tensor:
        """(N, F, t, h, w) -> (N, C, *size), size = (2 T, H, W)."""
        out = self.body(maps)
        if tuple(out.shape[2:]) == tuple(size):
            return out
        return interpolate(out, size=size, mode="trilinear", align_corners=False)
