"""MoCo v3: momentum contrast within the batch, with a predictor (Chen et al., ICCV 2021, arXiv 2104.02057).

    L = l(q_1, k_2) + l(q_2, k_1),     l(q, k) = 2 tau mean_i -log( exp(q_i.k_i / tau) / sum_j exp(q_i.k_j / tau) )

q = predictor(projector(encoder(x))), k the momentum copy's projection, both of unit length; the negatives are the other
keys of the (global) batch. A vision transformer trains stably when its patch projection stays as it was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Positive, WidthsOrNone
from selftaught.engine.distributed import gather
from selftaught.engine.method import Optimizer
from selftaught.errors import UserError
from selftaught.methods._momentum import MomentumConfig, MomentumEmbedding
from selftaught.views import Pipeline

__all__ = ["MoCoV3"]


@dataclass
class Config(MomentumConfig):
    """MoCo v3's options; the defaults are the official recipe of ResNet-50 on ImageNet."""

    optimizer: Optimizer = "lars"
    lr: float = 0.3
    weight_decay: float = 1.5e-6
    warmup_epochs: float = 10.0
    crop: float = 0.2
    projector: str = "4096-256"
    predictor: WidthsOrNone = "4096"
    """Widths of the predictor's hidden layers; none leaves the predictor out."""
    predictor_norm: bool = False
    """BatchNorm after the predictor's last layer, too (the recipes of transformers)."""
    temperature: Positive = 1.0
    """Temperature tau."""
    symmetric: bool = True
    """Both directions; off predicts the second view from the first alone."""
    freeze_patches: bool = False
    """Leave a transformer's patch projection as it was drawn, for stability."""


PRESETS = {
    "imagenet": {"epochs": 300, "batch_size": 4096},
    "imagenet-100": {"lr": 0.6, "weight_decay": 1e-6, "epochs": 100, "batch_size": 4096},
    "imagenet-1000": {"target_decay": 0.996, "epochs": 1000, "batch_size": 4096},
    "imagenet-vit": {
        "encoder": "vit_small_patch16_224", "projector": "4096-4096-256", "predictor_norm": True, "temperature": 0.2,
        "freeze_patches": True, "crop": 0.08, "optimizer": "adamw", "lr": 1.5e-4, "weight_decay": 0.1,
        "warmup_epochs": 40.0, "epochs": 300, "batch_size": 4096,
    },
    "medmnist": {
        "encoder": "resnet50", "image_size": 32, "temperature": 0.2, "crop": 0.08, "lars_eta": 0.02, "lars_clip": True,
        "weight_decay": 1e-6, "epochs": 400, "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "512-128", "predictor": "512",
        "temperature": 0.2, "augment": "small", "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05,
        "warmup_epochs": 1.0, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class MoCoV3(MomentumEmbedding):
    """MoCo v3 on images of any number of channels, or on sensor series."""

    slug = "moco-v3"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, projector, momentum copy of both, and the predictor, which the copy lacks."""
        super().build()
        c = self.config
        if c.freeze_patches:
            self.freeze_patch_projection()
        width = int(str(c.projector).split("-")[-1])
        hidden = [] if c.predictor == "none" else [int(each) for each in str(c.predictor).split("-")]
        norm: dict[str, Any] = {"last_norm": c.predictor_norm, "last_affine": False}
        head = networks.mlp([width, *hidden, width], hidden_bias=False, out_bias=False, **norm)
        self.predictor = head if hidden else nn.Identity()

    def head(self, widths: list[int]) -> nn.Module:
        """Linear-BN-ReLU, once or twice, and Linear-BN without scale and shift; no biases."""
        return networks.mlp(widths, hidden_bias=False, out_bias=False, last_norm=True, last_affine=False)

    def paper_views(self) -> list[Pipeline]:
        """T (always blurred) and T' (seldom blurred, sometimes solarised)."""
        return list(views.barlow_twins(self.config.image_size, scale=(self.config.crop, 1.0)))

    def freeze_patch_projection(self) -> None:
        """Take the patch projection of a transformer out of training; the momentum copy has the same one.

        Raises:
            UserError: the encoder has none.
        """
        projection = getattr(getattr(getattr(self.encoder, "model", None), "patch_embed", None), "proj", None)
        if projection is None:
            raise UserError(
                f"freeze_patches: {self.config.encoder} has no patch projection; take a ViT or leave it off"
            )
        projection.requires_grad_(False)

    def predicted(self, x: Tensor) -> Tensor:
        """q (N, D), not yet normalised."""
        return self.predictor(self.project(x))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Predictions of each view against the other's keys, all gathered over processes."""
        xs, c = self.seen(batch), self.config
        q1, q2 = (gather(q) for q in self.embed_views(xs, self.predicted))
        k1, k2 = (gather(k) for k in self.embed_views(xs, self.target))
        loss = objectives.moco_v3(q1, q2, k1, k2, temperature=c.temperature, symmetric=c.symmetric)
        return {"loss": loss, "agreement": cosine_similarity(q1.detach().float(), k2.float()).mean()}
