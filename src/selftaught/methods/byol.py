"""BYOL: predict what a slowly moving copy makes of the other view (Grill et al., NeurIPS 2020, arXiv 2006.07733).

    L = 2 - 2 cos(q(z_1), sg(z'_2)) + 2 - 2 cos(q(z_2), sg(z'_1)),       xi <- m xi + (1 - m) theta after each step

z = g(f(x)) with the trained weights theta, z' with the copy's weights xi, q the predictor, which the copy lacks. There
are no negatives; that it does not collapse rests on the predictor and on the copy lagging behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from selftaught import networks, objectives, views
from selftaught.catalog.rules import WidthsOrNone
from selftaught.engine.method import Optimizer
from selftaught.methods._momentum import MomentumConfig, MomentumEmbedding
from selftaught.views import Pipeline

__all__ = ["BYOL"]


@dataclass
class Config(MomentumConfig):
    """BYOL's options; the defaults are the paper's ImageNet recipe."""

    optimizer: Optimizer = "lars"
    lr: float = 0.2
    weight_decay: float = 1.5e-6
    warmup_epochs: float = 10.0
    projector: str = "4096-256"
    predictor: WidthsOrNone = "4096"
    """Widths of the predictor's hidden layers; none leaves the predictor out (ablation: it collapses)."""
    target_decay: float = 0.996
    symmetric: bool = True
    """Predict both ways; off: the second view from the first alone."""


PRESETS = {
    "imagenet": {"epochs": 1000, "batch_size": 4096},
    "imagenet-300": {"lr": 0.3, "weight_decay": 1e-6, "target_decay": 0.99, "epochs": 300, "batch_size": 4096},
    "imagenet-100": {"lr": 0.45, "weight_decay": 1e-6, "target_decay": 0.99, "epochs": 100, "batch_size": 4096},
    "medmnist": {
        "encoder": "resnet50", "image_size": 32, "lr": 0.5, "lars_eta": 0.02, "lars_clip": True, "weight_decay": 1e-6,
        "target_decay": 0.99, "epochs": 400, "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "512-128", "predictor": "512", "augment": "small",
        "crop": 0.2, "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0,
        "target_decay": 0.99, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class BYOL(MomentumEmbedding):
    """BYOL on images of any number of channels, or on sensor series."""

    slug = "byol"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, projector, momentum copy of both, and the predictor."""
        super().build()
        width = int(str(self.config.projector).split("-")[-1])
        hidden = [] if self.config.predictor == "none" else [int(w) for w in str(self.config.predictor).split("-")]
        self.predictor = networks.mlp([width, *hidden, width], norm="bn") if hidden else nn.Identity()

    def head(self, widths: list[int]) -> nn.Module:
        """Linear-BN-ReLU-Linear."""
        return networks.mlp(widths, norm="bn")

    def paper_views(self) -> list[Pipeline]:
        """T (always blurred) and T' (seldom blurred, sometimes solarised)."""
        return list(views.barlow_twins(self.config.image_size, scale=(self.config.crop, 1.0)))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Predict each view's target from the other view. A mean over samples: nothing to gather."""
        xs = self.seen(batch)
        z = self.embed_views(xs)
        targets = self.embed_views(xs, self.target)
        p1, p2 = (self.predictor(each) for each in z)
        loss = objectives.byol(p1, p2, *targets, symmetric=self.config.symmetric)
        return {"loss": loss, "spread": objectives.spread(z[0])}
