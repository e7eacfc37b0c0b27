"""Barlow Twins: the cross-correlation of two views' embeddings becomes the identity (Zbontar et al., ICML 2021).

    L = sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2,      C = (1/N) Zh_A^T Zh_B

Zh are the projections standardised per feature over the (global) batch: biased variance, eps 1e-5. The first sum makes
the embedding invariant to the distortions, the second decorrelates its components. No negatives, no momentum copy, no
predictor, no stop-gradient. arXiv 2103.03230.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from selftaught import networks, objectives, views
from selftaught.catalog.rules import NonNegative, Positive
from selftaught.engine.method import Optimizer
from selftaught.engine.optim import parameter_groups
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.views import Pipeline

__all__ = ["BarlowTwins"]


@dataclass
class Config(JointEmbeddingConfig):
    """Barlow Twins' options; the defaults are the official ImageNet recipe."""

    optimizer: Optimizer = "lars"
    lr: float = 0.2
    lr_biases: NonNegative = 0.0048
    """Base learning rate of biases and norms; 0 takes lr."""
    weight_decay: float = 1e-6
    warmup_epochs: float = 10.0
    final_lr: float = 0.001
    projector: str = "8192-8192-8192"
    lambda_: NonNegative = 0.0051
    """Weight of the redundancy-reduction term."""
    normalize: Literal["batch", "feature", "none"] = "batch"
    """What the embeddings are standardised over."""
    terms: Literal["both", "invariance", "redundancy"] = "both"
    """Which terms to minimise (ablation)."""
    hsic: bool = False
    """Off-diagonal target -1 instead of 0."""
    centre_only: bool = False
    """Take out the mean but do not divide by the deviation (ablation)."""
    loss_scale: Positive = 1.0
    """Factor on the loss; 0.1 or less with Adam or SGD."""
    stop_grad: bool = False
    """Stop the gradient through the second view (symmetry ablation)."""
    predictor: bool = False
    """Put a predictor on the first view (symmetry ablation)."""


PRESETS = {
    "imagenet": {"epochs": 1000, "batch_size": 2048},
    "imagenet-300": {"epochs": 300, "batch_size": 2048},
    "cifar10": {
        "encoder": "resnet18", "image_size": 32, "projector": "512-512-2048", "augment": "small", "crop": 0.2,
        "optimizer": "adamw", "lr": 1e-3, "lr_biases": 0.0, "lambda_": 0.0078, "loss_scale": 0.1,
        "epochs": 1000, "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-256-256", "augment": "small", "crop": 0.2,
        "optimizer": "adamw", "lr": 4e-3, "lr_biases": 0.0, "weight_decay": 0.05, "warmup_epochs": 1.0,
        "lambda_": 0.01, "loss_scale": 0.1, "steps": 2000, "batch_size": 128,
    },
    "laptop-series": {
        "encoder": "resnet1d", "projector": "128-128-128", "optimizer": "adam", "lr": 1e-3, "lr_biases": 0.0,
        "lr_scaling": "none", "lambda_": 0.01, "loss_scale": 0.1, "epochs": 60, "batch_size": 256,
    },
}  # fmt: skip


class BarlowTwins(JointEmbedding):
    """Barlow Twins with its ablations."""

    slug = "barlow-twins"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, wide projector, and a predictor where the ablation asks for one."""
        super().build()
        width = int(str(self.config.projector).split("-")[-1])
        self.predictor = networks.mlp([width, width, width], norm="bn") if self.config.predictor else nn.Identity()

    def head(self, widths: list[int]) -> nn.Module:
        """Three linear layers without bias; BN and ReLU after all but the last."""
        return networks.mlp(widths, norm="bn", hidden_bias=False, out_bias=False)

    def paper_views(self) -> list[Pipeline]:
        """T (always blurred) and T' (seldom blurred, sometimes solarised)."""
        return list(views.barlow_twins(self.config.image_size, scale=(self.config.crop, 1.0)))

    def objective(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """The invariance and the redundancy term, and their weighted sum."""
        c = self.config
        return objectives.barlow_twins_terms(
            self.predictor(z1),
            z2.detach() if c.stop_grad else z2,
            lambda_=c.lambda_,
            normalize=c.normalize,
            terms=c.terms,
            loss_scale=c.loss_scale,
            hsic=c.hsic,
            centre_only=c.centre_only,
        )

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Biases and norms learn at a rate of their own."""
        c = self.config
        biases = lr * c.lr_biases / c.lr if c.lr_biases else lr
        return parameter_groups(self.trained_modules(), c.weight_decay, lr=lr, lr_excluded=biases)
