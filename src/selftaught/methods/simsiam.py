"""SimSiam: one network, a predictor, a stop-gradient, nothing else (Chen and He, CVPR 2021, arXiv 2011.10566).

    L = D(p_1, sg(z_2)) / 2 + D(p_2, sg(z_1)) / 2,      D(p, z) = -mean cos(p, z),   z = g(f(x)),   p = h(z)

BYOL without the momentum copy. Without the stop-gradient all embeddings become one: watch ``spread``, which is 1 for
directions spread evenly and 0 after collapse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from selftaught import networks, objectives, views
from selftaught.engine.method import Optimizer
from selftaught.engine.optim import parameter_groups
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.views import Pipeline

__all__ = ["SimSiam"]


@dataclass
class Config(JointEmbeddingConfig):
    """SimSiam's options; the defaults are the paper's ImageNet recipe."""

    optimizer: Optimizer = "sgd"
    lr: float = 0.05
    weight_decay: float = 1e-4
    decay_all: bool = True
    """Weight decay on biases and norms, too, as in the official code."""
    crop: float = 0.2
    projector: str = "2048-2048-2048"
    predictor: str = "512"
    """Widths of the predictor's hidden layers; none leaves the predictor out (ablation: it collapses)."""
    predictor_rate: Literal["constant", "scheduled", "frozen"] = "constant"
    """Learning rate of the predictor: constant, scheduled as the rest, or frozen as it starts (ablation)."""
    stop_gradient: bool = True
    """Hold the projections fixed that are predicted; off is the paper's ablation, which collapses."""
    similarity: Literal["cosine", "cross-entropy"] = "cosine"
    """What compares prediction and projection."""
    symmetric: bool = True
    """Predict both ways; off: the second view from the first alone."""


PRESETS = {
    "imagenet": {"epochs": 100, "batch_size": 512},
    "imagenet-800": {"epochs": 800, "batch_size": 256},
    "cifar10": {
        "encoder": "resnet18", "image_size": 32, "projector": "2048-2048", "augment": "small", "lr": 0.03,
        "weight_decay": 5e-4, "epochs": 800, "batch_size": 512,
    },
    "medmnist": {
        "encoder": "resnet50", "image_size": 32, "lr": 0.5, "weight_decay": 1e-5, "decay_all": False,
        "warmup_epochs": 10.0, "epochs": 400, "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "512-512-512", "predictor": "128",
        "augment": "small", "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "decay_all": False,
        "warmup_epochs": 1.0, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class SimSiam(JointEmbedding):
    """SimSiam on images of any number of channels, or on sensor series, with its ablations."""

    slug = "simsiam"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, projector, and the predictor with its bottleneck."""
        super().build()
        c = self.config
        width = int(str(c.projector).split("-")[-1])
        hidden = [] if c.predictor == "none" else [int(w) for w in str(c.predictor).split("-")]
        self.predictor = networks.mlp([width, *hidden, width], hidden_bias=False) if hidden else nn.Identity()
        self.predictor.requires_grad_(c.predictor_rate != "frozen")

    def head(self, widths: list[int]) -> nn.Module:
        """BN after every layer, the last one without scale and shift; no biases."""
        return networks.mlp(widths, norm="bn", hidden_bias=False, out_bias=False, last_norm=True, last_affine=False)

    def paper_views(self) -> list[Pipeline]:
        """MoCo v2's two equal views: crop, flip, jitter (0.4, 0.4, 0.4, 0.1), grey 0.2, blur 0.5."""
        c = self.config
        return list(views.dcl(c.image_size, scale=(c.crop, 1.0), blur=0.5))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Predict each view's projection from the other view. A mean over samples: nothing to gather."""
        c = self.config
        z1, z2 = self.embed(batch)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = objectives.simsiam(
            p1, p2, z1, z2, stop_gradient=c.stop_gradient, similarity=c.similarity, symmetric=c.symmetric
        )
        return {"loss": loss, "spread": objectives.spread(z1)}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Encoder and projector; the predictor in groups of its own, whose rate may stay constant."""
        c = self.config
        rest = parameter_groups(
            nn.ModuleList([self.encoder, self.projector]), c.weight_decay, exclude_bias_and_norm=not c.decay_all
        )
        if not any(p.requires_grad for p in self.predictor.parameters()):
            return rest
        predictor = parameter_groups(self.predictor, c.weight_decay, exclude_bias_and_norm=not c.decay_all)
        return rest + [group | {"constant": c.predictor_rate == "constant"} for group in predictor]
