"""Retouch: two networks in turn, on pairs of pictures that are cropped and turned together.

critic:     mean softplus(-D(after)) + mean softplus(D(G(before)))
retoucher:  mean |G(before) - after| + weight mean softplus(-D(G(before)))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from selftaught import objectives
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optim, Optimizer, Schedule
from selftaught.views import Dihedral, Pipeline, RandomCrop, Recipe, View

__all__ = ["Retouch"]


@dataclass
class Config(MethodConfig):
    """Options of the example."""

    optimizer: Optimizer = "adam"
    lr: float = 2e-3
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    width: int = 16
    """Channels of both networks."""
    patch: int = 32
    """Side of the training patches."""
    weight: float = 0.01
    """Weight of the critic's judgement."""


PRESETS = {"laptop": {"steps": 300, "batch_size": 16}}


class Retouch(Method):
    """A retoucher and its critic."""

    slug = "retouch"
    config_class = Config
    config: Config
    output = "image"
    pixels = "float32"
    compares = False
    default_data = "photos:whole"

    def build(self) -> None:
        """A residual retoucher and a critic of patches."""
        c, w = self.channels, self.config.width
        self.retoucher = Retoucher(c, w)
        self.critic = nn.Sequential(
            nn.Conv2d(c, w, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(w, w, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w, 1), nn.Flatten(0),
        )  # fmt: skip

    def recipe(self) -> Recipe:
        """One patch in one of eight orientations, cut from both pictures alike."""
        cut = Pipeline((RandomCrop(self.config.patch), Dihedral()))
        return Recipe((View("before", "before", cut, space="pair"), View("after", "after", cut, space="pair")))

    def optimisers(self) -> dict[str, Optim]:
        """One for each network."""
        c = self.config
        return {
            "critic": Optim(self.critic, lr=c.lr / 2, betas=(0.5, 0.999)),
            "retoucher": Optim(self.retoucher, lr=c.lr, schedule="cosine", clip=1.0),
        }

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The critic, then the retoucher."""
        made, wanted = self.retoucher(batch["before"]), batch["after"]
        judged = objectives.retouch_critic(self.critic(wanted), self.critic(made.detach()))
        shown = {"critic": self.minimise({"loss": judged}, optimiser="critic")["loss"]}
        terms = objectives.retouch(made, wanted, self.critic(made), weight=self.config.weight)
        return shown | self.minimise(terms, optimiser="retoucher")

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Retouched pictures (N, C, H, W) in [0, 1]."""
        return self.deliverable()(self.inputs(batch))

    def deliverable(self) -> nn.Module:
        """The retoucher."""
        return self.retoucher

    def deliverable_spec(self) -> dict[str, Any]:
        """Its sizes."""
        return {"name": "retoucher", "channels": self.channels, "width": self.config.width}


class Retoucher(nn.Module):
    """A picture plus what three convolutions make of it; clipped to [0, 1] outside training."""

    receptive_radius = 3

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        y = x + self.change(x)
        return y if self.training else y.clamp(0, 1)
