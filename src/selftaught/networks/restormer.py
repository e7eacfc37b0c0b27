"""Restormer (Zamir et al., CVPR 2022, arXiv 2111.09881) with K output heads: attention between channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.networks.multi_output import ResidualHeads
from selftaught.networks.nafnet import PixelNorm

__all__ = ["ChannelAttention", "GatedFeedForward", "Restormer", "RestormerBlock"]


class ChannelAttention(nn.Module):
    """Attention between the channels of each head (MDTA): softmax(q k^T * temperature) v, q and k of length 1.

    Args:
        channels: C.
        heads: of the attention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise UserError(f"{channels} channels don't divide into {heads} heads of attention")
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.depthwise = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        q, k, v = (part.unflatten(1, (self.heads, -1)).flatten(3) for part in self.depthwise(self.qkv(x)).chunk(3, 1))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        made = scores.softmax(-1) @ v
        return self.project(made.flatten(1, 2).unflatten(2, x.shape[-2:]))


class GatedFeedForward(nn.Module):
    """conv( GELU(a) * b ), a and b the halves of a depthwise convolution (GDFN).

    Args:
        channels: C.
        expansion: width of a half as a multiple of C.
    """

    def __init__(self, channels: int, expansion: float = 2.66) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.expand = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        gate, value = self.depthwise(self.expand(x)).chunk(2, 1)
        return self.project(F.gelu(gate) * value)


class RestormerBlock(nn.Module):
    """x + attention(norm x), then x + feed(norm x).

    Args:
        channels: C.
        heads: of the attention.
        expansion: of the feed-forward part.
    """

    def __init__(self, channels: int, heads: int, expansion: float = 2.66) -> None:
        super().__init__()
        self.norm1, self.norm2 = PixelNorm(channels, eps=1e-5), PixelNorm(channels, eps=1e-5)
        self.attention, self.feed = ChannelAttention(channels, heads), GatedFeedForward(channels, expansion)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed(self.norm2(x))


def _down(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


def _up(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2))


class Restormer(ResidualHeads):
    """U-net of four levels of :class:`RestormerBlock`; the last convolution gives K residual images.

    Args:
        channels: of the images.
        width: of the finest level, even, doubled at each that is coarser.
        blocks: of the four levels.
        refinement: blocks at full resolution at the end.
        attention: heads of attention at the four levels.
        expansion: of the feed-forward parts.
        heads: K.
        combine: whether the output has all pairwise means of the heads.
    """

    multiple, padding = 8, "replicate"

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        refinement: int = 4,
        attention: Sequence[int] = (1, 2, 4, 8),
        expansion: float = 2.66,
        heads: int = 4,
        combine: bool = True,
    ) -> None:
        super().__init__()
        if len(blocks) != 4 or len(attention) != 4:
            raise UserError(f"blocks {tuple(blocks)}, attention {tuple(attention)}: Restormer has four levels")
        self.channels, self.heads, self.combine = channels, heads, combine

        def level(channels: int, k: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(RestormerBlock(channels, attention[k], expansion) for _ in range(count)))

        widths = [width << k for k in range(4)]
        self.intro = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(level(widths[k], k, blocks[k]) for k in range(4))
        self.downs = nn.ModuleList(_down(w) for w in widths[:3])
        self.ups = nn.ModuleList(_up(w) for w in widths[1:])
        self.reduce = nn.ModuleList([nn.Identity(), *(nn.Conv2d(2 * w, w, 1, bias=False) for w in widths[1:3])])
        out = [2 * width, *widths[1:3]]
        self.decoders = nn.ModuleList(level(out[k], k, blocks[k]) for k in range(3))
        self.refinement = level(2 * width, 0, refinement)
        self.ending = nn.Conv2d(2 * width, channels * heads, 3, padding=1, bias=False)

    def residuals(self, x: Tensor) -> Tensor:
        """(N, C, H, W) with sides that are multiples of 8 -> (N, K, C, H, W), without the image itself."""
        x = self.intro(x)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=False):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.encoders[3](x)
        for k in (2, 1, 0):
            x = self.decoders[k](self.reduce[k](torch.cat([self.ups[k](x), skips[k]], 1)))
        return self.ending(self.refinement(x)).unflatten(1, (self.heads, self.channels))
