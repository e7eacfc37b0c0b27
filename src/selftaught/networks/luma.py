"""Luma and colour apart: a network that sees the luma alone, as papers on super-resolution have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.upsampling import BicubicUpsample

__all__ = ["OnLuma", "from_ycbcr", "luma", "to_ycbcr"]

_TO = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_BACK = np.linalg.inv(np.array(_TO)).tolist()


def to_ycbcr(x: Tensor) -> Tensor:
    """RGB (N, 3, H, W) to Y in [0, 1] and Cb, Cr in [-0.5, 0.5], in the full range (JPEG).

    Raises:
        UserError: other than three channels.
    """
    if x.shape[1] != 3:
        raise UserError(f"RGB images have 3 channels, got {x.shape[1]}")
    return torch.einsum("ij,njhw->nihw", x.new_tensor(_TO), x)


def from_ycbcr(x: Tensor) -> Tensor:
    """The inverse of :func:`to_ycbcr`."""
    return torch.einsum("ij,njhw->nihw", x.new_tensor(_BACK), x)


def luma(x: Tensor) -> Tensor:
    """Y of RGB images, (N, 1, H, W)."""
    return to_ycbcr(x)[:, :1]


class OnLuma(nn.Module):
    """A network of one channel that enlarges the luma of RGB images; the colours are enlarged bicubically.

    Args:
        network: with ``scale`` and ``receptive_radius()``, (N, 1, H, W) to (N, 1, sH, sW).
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.scale = network, int(network.scale)
        self.bicubic = BicubicUpsample(self.scale)

    def forward(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, sH, sW)."""
        apart = to_ycbcr(low)
        return from_ycbcr(torch.cat([self.network(apart[:, :1]), self.bicubic(apart[:, 1:])], 1))

    def receptive_radius(self) -> int:
        """Input pixels that an output looks away in every direction."""
        return max(2, int(self.network.receptive_radius()))
