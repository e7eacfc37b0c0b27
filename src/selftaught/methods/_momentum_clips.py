"""What methods on clips with a momentum copy share: heads over the encoder, and a copy of all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.catalog.rules import Count, Share
from selftaught.engine.ema import MovingAverage
from selftaught.methods._clips import ClipConfig, ClipMethod
from selftaught.methods._momentum import mixed_batches


@dataclass
class MomentumClipConfig(ClipConfig):
    """Options of methods on clips with a momentum copy."""

    encoder: str = "resnet3d-18"
    image_size: int = 112
    projection: Count = 128
    """Width of a projection."""
    queue: Count = 16384
    """Keys in the queue; at most half the training set is taken."""
    target_decay: Share = 0.999
    """Decay of the momentum copy, which moves after every step."""


class Headed(nn.Module):
    """An encoder with named heads: (N, C, T, H, W) -> name -> (N, D)."""

    def __init__(self, encoder: nn.Module, heads: nn.ModuleDict) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Every head's projection."""
        h = self.encoder(x)
        return {name: head(h) for name, head in self.heads.items()}


class MomentumClips(ClipMethod):
    """Base of the methods on clips in which a momentum copy makes the keys."""

    config_class = MomentumClipConfig
    config: MomentumClipConfig

    def build(self) -> None:
        """Encoder, heads, and the momentum copy of both."""
        super().build()
        self.projections = nn.ModuleDict(self.heads())
        self.momentum = MovingAverage(self.followed(), self.config.target_decay)

    def heads(self) -> dict[str, nn.Module]:
        """The heads by name, from the encoder's width to the projection's."""
        raise TypeError(f"{type(self).__name__} defines no heads")

    def followed(self) -> Headed:
        """What the momentum copy follows."""
        return Headed(self.encoder, self.projections)

    def after_step(self) -> None:
        """Move the copy."""
        self.momentum.update(self.followed())

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Every head's projection (N, D) of clips, with gradient."""
        return self.followed()(x)

    @torch.no_grad()
    def keys(self, x: Tensor) -> dict[str, Tensor]:
        """The momentum copy's, in batches that are mixed over the processes."""

        def joined(clips: Tensor) -> Tensor:
            return torch.stack(list(self.momentum(clips).values()), dim=1)

        found: Any = mixed_batches(joined, x, self.steps)
        return {name: found[:, k] for k, name in enumerate(self.projections)}
