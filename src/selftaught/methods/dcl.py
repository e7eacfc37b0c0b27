"""DCL: contrast without the positive pair in the denominator (Yeh et al., ECCV 2022, arXiv 2110.06848).

With unit vectors z_i^(k) of view k, and U_{i,k} the sum of exp(<z_i^(k), z_j^(l)> / tau) over both views l of all other
images j != i:

    L_DC,i^(k)  = -     <z_i^(1), z_i^(2)> / tau + log U_{i,k}
    L_DCW,i^(k) = - w_i <z_i^(1), z_i^(2)> / tau + log U_{i,k},     w_i = 2 - exp(s_i/sigma) / mean_m exp(s_m/sigma)

InfoNCE keeps the positive in the sum; its gradient is DCL's times q_i = U_i / (exp(s_i/tau) + U_i) < 1, which is small
when the batch is small: that is the effect removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Positive
from selftaught.engine.method import Optimizer
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.views import Pipeline

__all__ = ["DCL"]


@dataclass
class Config(JointEmbeddingConfig):
    """DCL's options; the defaults are the paper's ImageNet recipe."""

    optimizer: Optimizer = "sgd"
    lr: float = 0.03
    weight_decay: float = 1e-4
    objective: Literal["dcl", "dclw", "infonce"] = "dcl"
    """dcl: the positive left out of the denominator; dclw: positives weighted besides; infonce: the baseline."""
    temperature: Positive = 0.1
    """Temperature tau."""
    sigma: Positive = 0.5
    """Width of DCLW's weighting."""
    detach_weight: bool = False
    """Stop the gradient through DCLW's weights."""
    symmetric: bool = True
    """Sum both directions, z1 to z2 and z2 to z1."""
    negatives: Literal["both_views", "cross_view_only"] = "both_views"
    """Where the negatives of an anchor come from."""
    crop: float = 0.2


PRESETS = {
    "imagenet": {"epochs": 200, "batch_size": 256},
    "cifar10": {
        "encoder": "resnet18", "image_size": 32, "projector": "512-128", "augment": "small", "temperature": 0.07,
        "weight_decay": 5e-4, "epochs": 200, "batch_size": 256,
    },
    "stl10": {
        "encoder": "resnet18", "image_size": 96, "projector": "512-128", "temperature": 0.07,
        "weight_decay": 5e-4, "epochs": 200, "batch_size": 256,
    },
    "reference-code": {
        "encoder": "resnet50", "image_size": 32, "projector": "512-128", "augment": "small", "crop": 0.08,
        "optimizer": "adam", "lr": 1e-3, "lr_scaling": "none", "weight_decay": 1e-6, "schedule": "constant",
        "epochs": 100, "batch_size": 128,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128", "augment": "small",
        "temperature": 0.2, "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0,
        "one_forward": True, "steps": 2000, "batch_size": 128,
    },
    "laptop-series": {
        "encoder": "resnet1d", "projector": "128-128", "optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-6,
        "lr_scaling": "none", "temperature": 0.15, "epochs": 60, "batch_size": 256,
    },
}  # fmt: skip


class DCL(JointEmbedding):
    """DCL, DCLW and their InfoNCE baseline in one code path."""

    slug = "dcl"
    config_class = Config
    config: Config

    def head(self, widths: list[int]) -> nn.Module:
        """Linear(no bias)-BN-ReLU-Linear."""
        return networks.mlp(widths, norm="bn", hidden_bias=False, out_bias=True)

    def paper_views(self) -> list[Pipeline]:
        """Crop, flip, jitter (0.4, 0.4, 0.4, 0.1), grey 0.2; blur where images are large."""
        return list(views.dcl(self.config.image_size, scale=(self.config.crop, 1.0)))

    def objective(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """The loss, the positives' similarity, and the coupling q that InfoNCE would have."""
        c = self.config
        z1, z2 = normalize(z1.float(), eps=1e-8), normalize(z2.float(), eps=1e-8)
        loss = objectives.dcl(
            z1,
            z2,
            temperature=c.temperature,
            sigma=c.sigma if c.objective == "dclw" else None,
            detach_weight=c.detach_weight,
            symmetric=c.symmetric,
            negatives=c.negatives,
            include_positive=c.objective == "infonce",
        )
        return {"loss": loss, "agreement": (z1 * z2).sum(1).mean().detach()}
