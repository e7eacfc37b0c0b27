"""VICReg: features keep their spread, views agree, no feature repeats another (Bardes et al., ICLR 2022).

    L = lambda mean (z1 - z2)^2 + mu [V(z1) + V(z2)] + nu [C(z1) + C(z2)]
    V(z) = mean_d relu(gamma - sqrt(Var_d + eps)),      C(z) = (1/D) sum_{i != j} Cov_ij^2

The variance term alone prevents collapse: no negatives, no momentum copy, no predictor, no stop-gradient, and the
embeddings are neither normalised nor standardised. arXiv 2105.04906.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from selftaught import networks, objectives, views
from selftaught.catalog.rules import NonNegative
from selftaught.engine.method import Optimizer
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.views import Pipeline

__all__ = ["VICReg"]


@dataclass
class Config(JointEmbeddingConfig):
    """VICReg's options; the defaults are the paper's ImageNet recipe."""

    optimizer: Optimizer = "lars"
    lr: float = 0.2
    weight_decay: float = 1e-6
    warmup_epochs: float = 10.0
    final_lr: float = 0.001
    projector: str = "8192-8192-8192"
    invariance: NonNegative = 25.0
    """Weight lambda of the term that brings two views together."""
    variance: NonNegative = 25.0
    """Weight mu of the term that keeps every feature's spread; at 0 the embedding collapses."""
    covariance: NonNegative = 1.0
    """Weight nu of the term against repetition between features."""
    gamma: NonNegative = 1.0
    """Deviation that is asked of every feature."""
    std_reduction: Literal["sum", "mean"] = "sum"
    """Variance terms of the two views: their sum (paper), or their mean (official code)."""


PRESETS = {
    "imagenet": {"epochs": 1000, "batch_size": 2048},
    "imagenet-official-code": {"std_reduction": "mean", "lr": 0.3, "epochs": 100, "batch_size": 512},
    "cifar10": {
        "encoder": "resnet18", "image_size": 32, "projector": "2048-2048-2048", "crop": 0.2, "lr": 0.3,
        "lars_eta": 0.02, "lars_clip": True, "weight_decay": 1e-4, "final_lr": 0.0, "epochs": 1000, "batch_size": 256,
    },
    "medmnist": {
        "encoder": "resnet50", "image_size": 32, "projector": "2048-2048-2048", "crop": 0.2, "lr": 0.3,
        "lars_eta": 0.02, "lars_clip": True, "weight_decay": 1e-4, "final_lr": 0.0, "epochs": 400, "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-256-256", "augment": "small", "crop": 0.2,
        "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0, "final_lr": 0.0,
        "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class VICReg(JointEmbedding):
    """VICReg on images of any number of channels, or on sensor series."""

    slug = "vicreg"
    config_class = Config
    config: Config

    def head(self, widths: list[int]) -> nn.Module:
        """The expander: BN and ReLU after all layers but the last, which has no bias."""
        return networks.mlp(widths, norm="bn", out_bias=False)

    def paper_views(self) -> list[Pipeline]:
        """Two equal views: crop, flip, jitter (0.4, 0.4, 0.2, 0.1), grey 0.2, blur 0.5, solarise 0.1."""
        c = self.config
        ops = (
            views.RandomResizedCrop(c.image_size, (c.crop, 1.0)),
            views.HorizontalFlip(),
            views.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
            views.Grayscale(0.2),
            views.GaussianBlur(0.5),
            views.Solarize(0.1),
        )
        return [Pipeline(ops, name="view 1"), Pipeline(ops, name="view 2")]

    def objective(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """The three terms without weights, and their weighted sum."""
        c = self.config
        return objectives.vicreg_terms(
            z1,
            z2,
            invariance=c.invariance,
            variance=c.variance,
            covariance=c.covariance,
            gamma=c.gamma,
            std_reduction=c.std_reduction,
        )
