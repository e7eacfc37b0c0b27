"""SupCon: all images of a class are positives of one another (Khosla et al., NeurIPS 2020, arXiv 2004.11362).

    L = mean_i [ log sum_{a != i} exp(z_i.z_a / tau)  -  1/|P(i)| sum_{p in P(i)} z_i.z_p / tau ]      over the 2N views

z is the L2-normalised projection, P(i) the other views of the batch with the label of i. With labels that are all
different it is SimCLR. ``form=in`` puts the mean over the positives inside the logarithm, which the paper finds worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from selftaught import networks, objectives, views
from selftaught.catalog.rules import NonNegative, Positive
from selftaught.engine.distributed import gather, gather_labels
from selftaught.engine.method import Optimizer
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.views import Pipeline

__all__ = ["SupCon"]


@dataclass
class Config(JointEmbeddingConfig):
    """SupCon's options; the defaults are close to the paper's ImageNet recipe."""

    optimizer: Optimizer = "lars"
    lr: float = 0.3
    weight_decay: float = 1e-6
    warmup_epochs: float = 10.0
    crop: float = 0.2
    temperature: Positive = 0.1
    """Temperature tau."""
    base_temperature: NonNegative = 0.0
    """The loss is multiplied by temperature / base_temperature (the authors' code: 0.07); 0 leaves it."""
    form: Literal["out", "in"] = "out"
    """Where the mean over the positives stands: out of the logarithm, or in it."""
    one_forward: bool = True


PRESETS = {
    "imagenet": {"epochs": 700, "batch_size": 4096},
    "cifar10": {
        "encoder": "resnet50", "image_size": 32, "augment": "small", "base_temperature": 0.07, "optimizer": "sgd",
        "lr": 0.5, "lr_scaling": "none", "weight_decay": 1e-4, "epochs": 1000, "batch_size": 1024,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128", "augment": "small", "optimizer": "adamw",
        "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class SupCon(JointEmbedding):
    """Supervised contrast on labelled images of any number of channels, or on labelled sensor series."""

    slug = "supcon"
    config_class = Config
    config: Config
    needs_labels = True

    def head(self, widths: list[int]) -> nn.Module:
        """Linear - ReLU - Linear, without BatchNorm."""
        return networks.mlp(widths, norm="none")

    def paper_views(self) -> list[Pipeline]:
        """Crop, flip, jitter (0.4, 0.4, 0.4, 0.1), grey 0.2; blur where images are large."""
        return list(views.dcl(self.config.image_size, scale=(self.config.crop, 1.0)))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Both views and the labels, gathered over processes."""
        c = self.config
        z1, z2 = (gather(z) for z in self.embed(batch))
        loss = objectives.supcon(
            z1,
            z2,
            labels=gather_labels(batch["label"]),
            temperature=c.temperature,
            form=c.form,
            base_temperature=c.base_temperature or None,
        )
        return {"loss": loss, "agreement": cosine_similarity(z1.detach().float(), z2.detach().float()).mean()}
