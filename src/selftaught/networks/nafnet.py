"""NAFNet (Chen et al., ECCV 2022, arXiv 2204.04676): restoration without activation functions, with K output heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.networks.multi_output import ResidualHeads

__all__ = ["LocalAverage", "NAFBlock", "NAFNet", "PixelNorm", "SimpleGate"]

_EPS = 1e-6


class PixelNorm(nn.Module):
    """LayerNorm over the channels of every pixel, with a scale and a shift per channel.

    Args:
        channels: C.
        eps: added to the variance.
        bias: whether there is a shift.
    """

    def __init__(self, channels: int, *, eps: float = _EPS, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps).permute(
            0, 3, 1, 2
        )


class SimpleGate(nn.Module):
    """Half of the channels times the other half."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2C, H, W) to (N, C, H, W)."""
        first, second = x.chunk(2, 1)
        return first * second


class LocalAverage(nn.Module):
    """Global average pooling that turns local at test (TLSC): means of a window as large as in training.

    Args:
        window: side in pixels of this layer's grid; 0 pools globally always. Training pools globally, too.
    """

    def __init__(self, window: int = 0) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 1, 1), or to (N, C, H, W) where the image is larger than the window."""
        height, width = x.shape[-2:]
        if self.training or not self.window or (height <= self.window and width <= self.window):
            return x.mean((2, 3), keepdim=True)
        means = _running_mean(_running_mean(x, 2, min(self.window, height)), 3, min(self.window, width))
        down, right = height - means.shape[2], width - means.shape[3]
        edges = (right // 2, right - right // 2, down // 2, down - down // 2)
        return F.pad(means, edges, mode="replicate")


def _running_mean(x: Tensor, axis: int, window: int) -> Tensor:
    """Means of ``window`` neighbours along an axis, (.., n - window + 1, ..)."""
    sums = F.pad(x, (0, 0, 1, 0) if axis == 2 else (1, 0)).cumsum(axis)
    count = x.shape[axis] - window + 1
    return (sums.narrow(axis, window, count) - sums.narrow(axis, 0, count)) / window


class NAFBlock(nn.Module):
    """y = x + beta * mix(x), out = y + gamma * feed(y); beta = gamma = 0 at the start, so a new block changes nothing.

    mix: norm, 1x1 conv to 2C, 3x3 depthwise, gate, times conv1x1(average), 1x1 conv. feed: norm, 1x1 to 2C, gate, 1x1.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm1, self.norm2 = PixelNorm(channels), PixelNorm(channels)
        self.expand = nn.Conv2d(channels, wide, 1)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.gate = SimpleGate()
        self.average = LocalAverage()
        self.attention = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.feed = nn.Sequential(nn.Conv2d(channels, wide, 1), SimpleGate(), nn.Conv2d(channels, channels, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        mixed = self.gate(self.depthwise(self.expand(self.norm1(x))))
        mixed = self.project(mixed * self.attention(self.average(mixed)))
        y = x + self.beta * mixed
        return y + self.gamma * self.feed(self.norm2(y))


class NAFNet(ResidualHeads):
    """The U-net of :class:`NAFBlock`, whose last convolution gives K residual images.

    17,111,907 weights with width 32 and one head, 17,114,508 with four; 67,888,835 and 67,894,028 with width 64.

    Args:
        channels: of the images.
        width: channels of the finest stage, doubled at every one that is coarser.
        encoder: blocks of each stage on the way down.
        middle: blocks of the coarsest stage.
        decoder: blocks of each stage on the way up.
        heads: K.
        combine: whether the output has all pairwise means of the heads (see :func:`combined_heads
            <selftaught.networks.multi_output.combined_heads>`).
        local: at test, average pooling sees windows of this side in pixels of the image (in the paper 1.5 times the
            training patch); 0: the whole image.

    Raises:
        UserError: encoder and decoder of unlike length.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 32,
        encoder: Sequence[int] = (1, 1, 1, 28),
        middle: int = 1,
        decoder: Sequence[int] = (1, 1, 1, 1),
        heads: int = 4,
        combine: bool = True,
        local: int = 0,
    ) -> None:
        super().__init__()
        if len(encoder) != len(decoder) or not encoder:
            raise UserError(f"encoder {tuple(encoder)} and decoder {tuple(decoder)} need one number per stage each")
        self.channels, self.heads, self.combine = channels, heads, combine
        self.intro = nn.Conv2d(channels, width, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.decoders, self.ups = nn.ModuleList(), nn.ModuleList()
        for blocks in encoder:
            self.encoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(blocks))))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, 2))
            width *= 2
        self.middle = nn.Sequential(*(NAFBlock(width) for _ in range(middle)))
        for blocks in decoder:
            self.ups.append(nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2)))
            width //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(blocks))))
        self.ending = nn.Conv2d(width, channels * heads, 3, padding=1)
        self.multiple = 2 ** len(encoder)
        self.set_local(local)

    def set_local(self, side: int) -> None:
        """Let average pooling see windows of ``side`` pixels of the image at test; 0: everything."""
        for stage, blocks in enumerate(self.encoders):
            _set_window(blocks, side >> stage)
        _set_window(self.middle, side >> len(self.encoders))
        for stage, blocks in enumerate(self.decoders):
            _set_window(blocks, side >> (len(self.decoders) - 1 - stage))

    def residuals(self, x: Tensor) -> Tensor:
        """(N, C, H, W) with sides that are multiples of ``multiple`` -> (N, K, C, H, W), without the image itself."""
        x = self.intro(x)
        skips = []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, blocks, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = blocks(up(x) + skip)
        return self.ending(x).unflatten(1, (self.heads, self.channels))


def _set_window(blocks: Any, window: int) -> None:
    for module in blocks.modules():
        if isinstance(module, LocalAverage):
            module.window = window
