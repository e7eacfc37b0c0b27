"""The encoder of transformation prediction networks, three convolutions over a window (Saeed et al. 2019; ColloSSL)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["TPN", "DeviceClassifier"]

LEAST = 46
"""Shortest window, in samples: kernels of 24, 16 and 8 without padding."""


class TPN(nn.Module):
    """Conv 32 of 24, conv 64 of 16, conv 96 of 8, each with ReLU and dropout 0.1; the maximum over time: 96 numbers.

    Args:
        channels: C of a window.
        dropout: after each convolution.

    Attributes:
        dim: 96.
        spec: how to build it again.
    """

    def __init__(self, channels: int = 6, dropout: float = 0.1) -> None:
        super().__init__()
        self.dim, self.channels = 96, channels
        self.spec: dict[str, Any] = {"name": "tpn", "channels": channels}
        widths, kernels = (channels, 32, 64, 96), (24, 16, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv1d(a, b, k), nn.ReLU(), nn.Dropout(dropout))
            for a, b, k in zip(widths, widths[1:], kernels, strict=False)
        )

    def maps(self, x: Tensor) -> Tensor:
        """(N, C, L) to (N, 96, L - 45)."""
        if x.dim() != 3 or x.shape[1] != self.channels or x.shape[2] < LEAST:
            raise UserError(
                f"windows (N, {self.channels}, {LEAST} or more) for this encoder, got {tuple(x.shape)}; "
                "take longer windows (?window=)"
            )
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L) to (N, 96)."""
        return self.maps(x).amax(2)

    def freeze_front(self, count: int = 2) -> None:
        """Take the gradient from the first ``count`` convolutions."""
        for block in self.blocks[:count]:
            block.requires_grad_(False)


class DeviceClassifier(nn.Module):
    """An encoder, Linear to 1024 with ReLU, and Linear to the classes.

    Args:
        encoder: with ``dim``.
        classes: number of classes.
        hidden: width between.
    """

    def __init__(self, encoder: nn.Module, classes: int, hidden: int = 1024) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(int(encoder.dim), hidden), nn.ReLU(), nn.Linear(hidden, classes))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Windows to logits."""
        return self.head(self.encoder(x))
