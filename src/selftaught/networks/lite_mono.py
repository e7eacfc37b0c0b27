"""Lite-Mono's encoder (Zhang et al., CVPR 2023, arXiv 2211.13202), in the size 8M that ProDepth builds on.

Stages of dilated depthwise blocks, each ended by a block that attends over channels (cross-covariance attention).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.networks.depth import EarlyMaps, PyramidEncoder, unit_normalised

__all__ = ["CrossCovarianceAttention", "DilatedBlock", "LGFIBlock", "LiteMono"]

_DILATIONS = ((1, 2, 3), (1, 2, 3), (1, 2, 3, 1, 2, 3, 2, 4, 6))
_EXPANSION = 6


class DropPath(nn.Module):
    """Leaves a residual branch out for some samples of a batch, while training."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """The branch (N, ...), scaled so that its mean stays."""
        if not self.training or self.share == 0:
            return x
        kept = 1 - self.share
        chosen = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device, dtype=x.dtype) < kept
        return x * chosen / kept


class _PositionCode(nn.Module):
    """Sines and cosines of the place in the map, mixed to the map's channels."""

    def __init__(self, dim: int, hidden: int = 32) -> None:
        super().__init__()
        self.hidden = hidden
        self.mix = nn.Conv2d(2 * hidden, dim, 1)

    def forward(self, height: int, width: int, like: Tensor) -> Tensor:
        """(1, dim, H, W)."""
        y = torch.arange(1, height + 1, dtype=torch.float32, device=like.device) / (height + 1e-6) * 2 * math.pi
        x = torch.arange(1, width + 1, dtype=torch.float32, device=like.device) / (width + 1e-6) * 2 * math.pi
        order = torch.arange(self.hidden, device=like.device)
        periods = 10000.0 ** (2 * torch.div(order, 2, rounding_mode="floor") / self.hidden)
        codes = []
        for place in (y, x):
            angle = place[:, None] / periods
            codes.append(torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), 2).flatten(1))
        rows = codes[0][:, None].expand(height, width, self.hidden)
        columns = codes[1][None].expand(height, width, self.hidden)
        return self.mix(torch.cat((rows, columns), 2).permute(2, 0, 1)[None].to(like.dtype))


class DilatedBlock(nn.Module):
    """Depthwise 3 x 3 with a dilation, BatchNorm, x6 MLP, layer scale, residual.

    Args:
        dim: channels.
        dilation: of the convolution.
        drop: share of samples whose branch is left out while training.
    """

    def __init__(self, dim: int, dilation: int = 1, drop: float = 0.0) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=dilation, dilation=dilation, groups=dim, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.up, self.down = nn.Conv2d(dim, _EXPANSION * dim, 1), nn.Conv2d(_EXPANSION * dim, dim, 1)
        self.scale = nn.Parameter(torch.full((dim, 1, 1), 1e-6))
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) to the same."""
        branch = self.down(F.gelu(self.up(self.norm(self.depthwise(x)))))
        return x + self.drop(self.scale * branch)


class CrossCovarianceAttention(nn.Module):
    """Attention over channels: softmax(t k^T q) v with q and k normalised over the places (XCiT).

    Args:
        dim: channels.
        heads: into which they are divided.
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, dim) to the same."""
        n, length, dim = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 4, 1)
        attention = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        mixed = attention.softmax(-1) @ v
        return self.project(mixed.permute(0, 3, 1, 2).reshape(n, length, dim))


class LGFIBlock(nn.Module):
    """Local-global features interaction: attention over channels, then the x6 MLP.

    Args:
        dim: channels.
        positions: whether places are told apart by a Fourier code.
        drop: see :class:`DilatedBlock`.
        heads: of the attention.
    """

    def __init__(self, dim: int, positions: bool = False, drop: float = 0.0, heads: int = 8) -> None:
        super().__init__()
        self.positions = _PositionCode(dim) if positions else None
        self.before, self.norm = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention = CrossCovarianceAttention(dim, heads)
        self.up, self.down = nn.Linear(dim, _EXPANSION * dim), nn.Linear(_EXPANSION * dim, dim)
        self.attention_scale, self.scale = (nn.Parameter(torch.full((dim,), 1e-6)) for _ in range(2))
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) to the same."""
        n, dim, height, width = x.shape
        seen = x if self.positions is None else x + self.positions(height, width, x)
        tokens = seen.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention_scale * self.attention(self.before(tokens))
        branch = self.scale * self.down(F.gelu(self.up(self.norm(tokens))))
        return x + self.drop(branch.transpose(1, 2).reshape(n, dim, height, width))


def _stem_layer(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.GELU())


class LiteMono(PyramidEncoder):
    """Lite-Mono-8M: maps of 64, 64, 128, 224 channels at strides 2, 4, 8, 16.

    Args:
        channels: of the picture.
        widths: of the three stages; the stem has the first one.
        dilations: of the dilated blocks of each stage.
        drop: largest share of branches left out; it grows linearly from 0 over the blocks (default 0.4).
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 224),
        dilations: Sequence[Sequence[int]] = _DILATIONS,
        drop: float = 0.4,
    ) -> None:
        super().__init__()
        first = widths[0]
        self.channels = (first, *widths)
        self.stem = nn.Sequential(
            _stem_layer(channels, first, 2), _stem_layer(first, first, 1), _stem_layer(first, first, 1)
        )
        ins = (first + channels, *(2 * w + channels for w in widths[:-1]))
        self.downsample = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in zip(ins, widths, strict=True))
        blocks_in_all = sum(len(d) + 1 for d in dilations)
        shares = [drop * k / (blocks_in_all - 1) for k in range(blocks_in_all)]
        self.stages = nn.ModuleList()
        for at, (width, each) in enumerate(zip(widths, dilations, strict=True)):
            mine, shares = shares[: len(each) + 1], shares[len(each) + 1 :]
            blocks: list[nn.Module] = [DilatedBlock(width, d, s) for d, s in zip(each, mine[:-1], strict=True)]
            self.stages.append(nn.Sequential(*blocks, LGFIBlock(width, positions=at == 0, drop=mine[-1])))
        self.apply(_initialise)

    def early(self, image: Tensor) -> EarlyMaps:
        """Stem and first stage."""
        x = unit_normalised(image)
        small = [F.avg_pool2d(x, 3, 2, 1)]
        while len(small) < len(self.stages):
            small.append(F.avg_pool2d(small[-1], 3, 2, 1))
        stem = self.stem(x)
        into = self.downsample[0](torch.cat((stem, small[0]), 1))
        return EarlyMaps(self.stages[0](into), (stem, into, small))

    def late(self, early: EarlyMaps, feature: Tensor | None = None) -> list[Tensor]:
        """The other stages; each sees the last one's input and output, and the picture made small."""
        stem, into, small = early.state
        maps = [stem, early.feature if feature is None else feature]
        for at in range(1, len(self.stages)):
            into = self.downsample[at](torch.cat((into, maps[-1], small[at]), 1))
            maps.append(self.stages[at](into))
        return maps


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
