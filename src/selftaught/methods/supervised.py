"""Supervised: plain cross-entropy on the labels, the yardstick (recipe of He et al., CVPR 2016, arXiv 1512.03385).

    L = -mean_i log softmax( W f(x_i) + b )_{y_i}

The same encoder, data and budget as the methods without labels; what it delivers is a classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from selftaught import objectives
from selftaught.catalog.rules import Share
from selftaught.engine.method import Optimizer, Schedule
from selftaught.methods._encoder import ClassifierConfig, ClassifierMethod, accuracy
from selftaught.views import HorizontalFlip, Pipeline, RandomResizedCrop

__all__ = ["Supervised"]


@dataclass
class Config(ClassifierConfig):
    """Options of supervised training; the defaults are the usual ImageNet recipe of ResNet-50."""

    optimizer: Optimizer = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    schedule: Schedule = "step"
    decay_every: float = 0.3333
    decay_factor: float = 0.1
    smoothing: Share = 0.0
    """Share of a label that is spread evenly over all classes."""


PRESETS = {
    "imagenet": {"epochs": 90, "batch_size": 256},
    "cifar10": {
        "encoder": "resnet18", "image_size": 32, "augment": "small", "crop": 0.2, "schedule": "cosine",
        "weight_decay": 5e-4, "epochs": 200, "batch_size": 128,
    },
    "medmnist": {
        "encoder": "resnet50", "image_size": 32, "optimizer": "adam", "lr": 1e-3, "lr_scaling": "none",
        "weight_decay": 0.0, "decay_every": 0.5, "epochs": 100, "batch_size": 128,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "augment": "small", "crop": 0.2, "optimizer": "adamw",
        "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0, "schedule": "cosine", "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class Supervised(ClassifierMethod):
    """A classifier of images of any number of channels, or of sensor series."""

    slug = "supervised"
    config_class = Config
    config: Config

    def paper_views(self) -> list[Pipeline]:
        """Crop and flip."""
        c = self.config
        return [Pipeline((RandomResizedCrop(c.image_size, (c.crop, 1.0)), HorizontalFlip()), name="view")]

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy, a mean over local rows, and the share that is right."""
        logits = self.classifier(self.encoder(self.seen(batch)[0]))
        loss = objectives.supervised(logits, batch["label"], smoothing=self.config.smoothing)
        return {"loss": loss, "accuracy": accuracy(logits, batch["label"])}
