"""What methods with a momentum copy share: a target network that follows the trained one, without gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from selftaught.catalog.rules import Share
from selftaught.engine.distributed import gather, rank, world_size
from selftaught.engine.ema import MovingAverage, cosine_decay
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig


@dataclass
class MomentumConfig(JointEmbeddingConfig):
    """Options of methods with a momentum copy of encoder and projector."""

    target_decay: Share = 0.99
    """Decay of the momentum copy at the start; 0 makes it the trained network itself, one step behind."""
    target_final: Share = 1.0
    """Decay at the end of the run, with the cosine schedule."""
    target_schedule: Literal["cosine", "constant"] = "cosine"
    """How the decay goes from target_decay to target_final; constant keeps it."""


class MomentumEmbedding(JointEmbedding):
    """Base of the methods in which a momentum copy gives the targets; the copy moves after every optimiser step."""

    config_class = MomentumConfig
    config: MomentumConfig

    def build(self) -> None:
        """Encoder, projector, and the momentum copy of both."""
        super().build()
        self.momentum = MovingAverage(self.followed(), self.config.target_decay)

    def followed(self) -> nn.Module:
        """What the momentum copy follows: encoder and projector, without a predictor."""
        return nn.Sequential(self.encoder, self.projector)

    @property
    def target_decay(self) -> float:
        """m of this step."""
        c = self.config
        if c.target_schedule == "constant":
            return c.target_decay
        return cosine_decay(self.steps, self.total_steps, c.target_decay, c.target_final)

    def after_step(self) -> None:
        """Move the copy: xi <- m xi + (1 - m) theta."""
        self.momentum.base = self.target_decay
        self.momentum.update(self.followed())

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        """The copy's projection (N, D) of a view, without gradient."""
        return self.momentum(x)


@torch.no_grad()
def mixed_batches(network: Callable[[Tensor], Tensor], x: Tensor, seed: int) -> Tensor:
    """What a network makes of (N, ...) samples, computed in batches that are mixed over the processes.

    BatchNorm's statistics then don't tell which samples belong together. On one process nothing is mixed.

    Args:
        network: (N, ...) -> (N, D) or more axes.
        x: this process's samples, as many as every other's.
        seed: the same on all processes.
    """
    world, rows = world_size(), len(x)
    if world == 1:
        return network(x)
    dice = torch.Generator().manual_seed(seed)  # the same order everywhere, without a message
    order = torch.randperm(world * rows, generator=dice).to(x.device)
    mine = slice(rank() * rows, (rank() + 1) * rows)
    shuffled = gather(network(gather(x)[order[mine]]))
    return shuffled[order.argsort()[mine]]
