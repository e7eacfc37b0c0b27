"""SimCLR: two views of one image agree, those of different images do not (Chen et al., 2020, arXiv 2002.05709).

    L = -mean_i log( exp(z_i . z_p(i) / tau) / sum_{j != i} exp(z_i . z_j / tau) )        over the 2N views of a batch

z is the L2-normalised projection; the encoder's features h, before the projection, are what one keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives
from selftaught.catalog.rules import Positive
from selftaught.engine.method import Optimizer
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig

__all__ = ["SimCLR"]


@dataclass
class Config(JointEmbeddingConfig):
    """SimCLR's options; the defaults are the paper's ImageNet recipe."""

    optimizer: Optimizer = "lars"
    lr: float = 0.3
    weight_decay: float = 1e-6
    warmup_epochs: float = 10.0
    temperature: Positive = 0.1
    """Temperature tau of the softmax."""
    one_forward: bool = True


PRESETS = {
    "imagenet": {"epochs": 100, "batch_size": 4096},
    "cifar10": {
        "encoder": "resnet18", "image_size": 32, "projector": "512-128", "augment": "small", "crop": 0.2,
        "temperature": 0.5, "lr": 1.0, "weight_decay": 1e-4, "epochs": 1000, "batch_size": 512,
    },
    "medmnist": {
        "encoder": "resnet50", "image_size": 32, "projector": "4096-512", "temperature": 0.2, "lr": 0.3,
        "lars_eta": 0.02, "lars_clip": True, "weight_decay": 1e-4, "epochs": 400, "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128", "augment": "small", "crop": 0.2,
        "temperature": 0.2, "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0,
        "steps": 2000, "batch_size": 128,
    },
    "laptop-series": {
        "encoder": "resnet1d", "projector": "128-128", "optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-6,
        "lr_scaling": "none", "warmup_epochs": 0.0, "temperature": 0.15, "epochs": 60, "batch_size": 256,
    },
}  # fmt: skip


class SimCLR(JointEmbedding):
    """SimCLR on images of any number of channels, or on sensor series."""

    slug = "simclr"
    config_class = Config
    config: Config

    def head(self, widths: list[int]) -> nn.Module:
        """Linear-BN-ReLU-Linear."""
        return networks.mlp(widths, norm="bn", hidden_bias=False, out_bias=True)

    def objective(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """NT-Xent, and how well the positive pairs agree."""
        loss = objectives.simclr(z1, z2, temperature=self.config.temperature)
        agreement = (normalize(z1.detach().float()) * normalize(z2.detach().float())).sum(1).mean()
        return {"loss": loss, "agreement": agreement}
