"""The hybrid sparse U-Net of Masked Scene Modeling: sparse convolutions everywhere, attention at the coarse levels.

HUNet, arXiv 2504.06719; layers as in the authors' phermosilla/msm. Five levels, edges 2 cm x 2^l, 32-64-128-256-384
channels on the way down and 384-256-128-96-64 on the way up; the five outputs on the way up are the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.curves import CURVES
from selftaught.networks.sparse import InverseConv, StridedConv, Voxels
from selftaught.networks.sparse_blocks import RMSNorm, SparseResBlock, SparseTransformerBlock

__all__ = ["HUNet"]


class _Level(nn.Module):
    """The blocks of one level: convolutions, then attention; each attention takes the next curve."""

    def __init__(
        self, convs: int, attentions: int, dim: int, head: int, drops: Sequence[float], **options: Any
    ) -> None:
        super().__init__()
        rates = iter(drops)
        self.blocks = nn.ModuleList(SparseResBlock(dim, next(rates)) for _ in range(convs))
        self.blocks.extend(
            SparseTransformerBlock(dim, dim // head, drop_path=next(rates), **options) for _ in range(attentions)
        )

    def forward(self, x: Tensor, voxels: Voxels, curves: list[str]) -> Tensor:
        for at, block in enumerate(self.blocks):
            curve = curves[at % len(curves)]
            x = block(x, voxels, curve)
        return x


class HUNet(nn.Module):
    """The hybrid sparse U-Net.

    Args:
        in_channels: features per voxel (6: colour and normal).
        channels: on the way down, finest level first.
        up_channels: on the way up, coarsest level first; as many.
        blocks: residual blocks per level and way (2).
        attention: transformer blocks at each of the coarse levels and way (2); 0 is convolutions alone.
        attention_levels: coarsest levels that have them (2).
        convolution: False leaves the residual blocks out: attention alone, at all levels.
        head: channels of an attention head (8).
        window: tokens that attention sees (1024).
        dropout: of attention weights (0.1).
        drop_path: of the last block, growing linearly from 0 (0.4; the way up runs through its rates backwards).

    Raises:
        UserError: widths that don't fit each other.
    """

    def __init__(
        self,
        in_channels: int = 6,
        channels: Sequence[int] = (32, 64, 128, 256, 384),
        up_channels: Sequence[int] = (384, 256, 128, 96, 64),
        *,
        blocks: int = 2,
        attention: int = 2,
        attention_levels: int = 2,
        convolution: bool = True,
        head: int = 8,
        window: int = 1024,
        dropout: float = 0.1,
        drop_path: float = 0.4,
    ) -> None:
        super().__init__()
        down, up, count = tuple(channels), tuple(up_channels), len(channels)
        if len(up) != count or count < 1 or up[0] != down[-1]:
            raise UserError(f"widths {down} down and {up} up: as many of both, the coarsest alike")
        self.channels, self.up_channels = down, up
        attended = range(count) if not convolution else range(max(0, count - attention_levels), count)
        shape = [(blocks if convolution else 0, attention if at in attended else 0) for at in range(count)]
        total = sum(map(sum, shape))
        rates = [drop_path * k / max(1, total - 1) for k in range(total)]
        spans = [sum(map(sum, shape[:at])) for at in range(count + 1)]
        options: dict[str, Any] = {"window": window, "dropout": dropout}
        self.stem = nn.Sequential(nn.Linear(in_channels, down[0], bias=False), RMSNorm(down[0]))
        self.down = nn.ModuleList(StridedConv(a, b) for a, b in pairwise(down))
        self.down_norms = nn.ModuleList(RMSNorm(b) for b in down[1:])
        self.encoder = nn.ModuleList(
            _Level(*shape[at], down[at], head, rates[spans[at] : spans[at + 1]], **options) for at in range(count)
        )
        widths = up[::-1]  # finest first, as the levels
        self.bottom = RMSNorm(down[-1])
        self.up_norms = nn.ModuleList(RMSNorm(widths[at + 1]) for at in range(count - 1))
        self.up = nn.ModuleList(InverseConv(widths[at + 1], widths[at]) for at in range(count - 1))
        self.skip_norms = nn.ModuleList(RMSNorm(down[at]) for at in range(count - 1))
        self.skips = nn.ModuleList(nn.Linear(down[at], widths[at], bias=False) for at in range(count - 1))
        self.up_gammas = nn.ParameterList(nn.Parameter(torch.ones(widths[at])) for at in range(count - 1))
        self.decoder = nn.ModuleList(
            _Level(*shape[at], widths[at], head, rates[spans[at] : spans[at + 1]][::-1], **options)
            for at in range(count)
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the outputs, finest level first."""
        return self.up_channels[::-1]

    def forward(self, x: Tensor, levels: list[Voxels]) -> list[Tensor]:
        """(V, in_channels) at the finest of ``levels`` -> the levels' outputs (V_l, C_l), finest first."""
        curves = self.curves()
        return self.decode(self.encode(x, levels, curves), levels, curves=curves)

    def curves(self) -> list[str]:
        """The four curves, in an order drawn anew for every pass while training."""
        order = torch.randperm(len(CURVES)).tolist() if self.training else range(len(CURVES))
        return [CURVES[k] for k in order]

    def encode(self, x: Tensor, levels: list[Voxels], curves: list[str] | None = None) -> list[Tensor]:
        """The way down: (V_l, channels[l]) of every level, finest first."""
        if len(levels) != len(self.channels):
            raise UserError(f"{len(levels)} levels of voxels for a network of {len(self.channels)}")
        curves, found = curves or self.curves(), []
        x = self.stem(x)
        for at, level in enumerate(levels):
            if at:
                x = self.down_norms[at - 1](self.down[at - 1](x, levels[at - 1]))
            x = self.encoder[at](x, level, curves)
            found.append(x)
        return found

    def decode(
        self,
        encoded: list[Tensor],
        levels: list[Voxels],
        visible: list[Tensor] | None = None,
        tokens: Any = None,
        curves: list[str] | None = None,
    ) -> list[Tensor]:
        """The way up, from the coarsest level: (V_l, widths[l]) of every level, finest first.

        Args:
            encoded: of :meth:`encode`; with ``visible`` of the visible voxels alone.
            levels: all voxels.
            visible: (V_l,) bool per level: which voxels the encoder saw. None: all.
            tokens: per level a learnt row (widths[l],) that hidden voxels get in place of what comes from the encoder.
            curves: the order of curves; None draws one.
        """
        curves = curves or self.curves()
        last = len(levels) - 1
        x = _filled(self.bottom(encoded[last]), last, visible, tokens)
        found = [self.decoder[last](x, levels[last], curves)]
        for at in range(last - 1, -1, -1):
            up = self.up[at](self.up_norms[at](found[-1]), levels[at])
            skip = self.skips[at](self.skip_norms[at](encoded[at]))
            x = self.up_gammas[at] * up + _filled(skip, at, visible, tokens)
            found.append(self.decoder[at](x, levels[at], curves))
        return found[::-1]


def _filled(x: Tensor, at: int, visible: list[Tensor] | None, tokens: Any) -> Tensor:
    """Rows of visible voxels, and the level's token for the others."""
    if visible is None:
        return x
    seen = visible[at]
    if len(x) != int(seen.sum()):
        raise UserError(f"level {at}: {len(x)} rows of {int(seen.sum())} visible voxels")
    full = tokens[at].to(x.dtype).expand(len(seen), -1)
    return full.index_copy(0, seen.nonzero()[:, 0], x)
