"""ReSSL: a strong view keeps the relations of a weak view to other images (Zheng et al., arXiv 2107.09282).

    L = -mean_i sum_j softmax_j(<k_i, Q_j> / tau_k) log softmax_j(<q_i, Q_j> / tau_q)

q is the student's embedding of a strongly augmented view, k the momentum teacher's of a weakly augmented one (crop and
flip), Q a queue of the teacher's earlier embeddings. What is learnt is how an image lies among others, not that it
differs from all of them. Once the target is one-hot at the image's own key, this is MoCo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Positive
from selftaught.engine.distributed import gather
from selftaught.engine.method import Optimizer
from selftaught.methods._momentum import MomentumConfig, MomentumEmbedding
from selftaught.views import HorizontalFlip, Pipeline, RandomResizedCrop

__all__ = ["ReSSL"]


@dataclass
class Config(MomentumConfig):
    """ReSSL's options; the defaults are the paper's ImageNet recipe."""

    optimizer: Optimizer = "sgd"
    lr: float = 0.05
    weight_decay: float = 1e-4
    warmup_epochs: float = 5.0
    crop: float = 0.2
    projector: str = "4096-512"
    head_norm: Literal["none", "bn"] = "none"
    """Normalisation after the projector's hidden layer."""
    target_decay: float = 0.999
    target_schedule: Literal["cosine", "constant"] = "constant"
    temperature_q: Positive = 0.1
    """Temperature of the student's relations."""
    temperature_k: Positive = 0.04
    """Temperature of the teacher's relations, the lower one."""
    queue: Count = 131072
    """Embeddings in the queue; at most half the training set is taken."""
    teacher_view: Literal["weak", "strong"] = "weak"
    """What the teacher sees: crop and flip alone, or a view as strong as the student's (ablation)."""


PRESETS = {
    "imagenet": {"epochs": 200, "batch_size": 256},
    "medmnist": {
        "encoder": "resnet50", "image_size": 32, "projector": "4096-256", "queue": 65536, "lr": 0.3,
        "warmup_epochs": 10.0, "crop": 0.08, "target_decay": 0.99, "target_schedule": "cosine", "epochs": 400,
        "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "512-128", "head_norm": "bn", "queue": 4096,
        "augment": "small", "crop": 0.2, "target_decay": 0.99, "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05,
        "warmup_epochs": 1.0, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class ReSSL(MomentumEmbedding):
    """ReSSL on images of any number of channels, or on sensor series."""

    slug = "ressl"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Student, teacher and the queue, no longer than half the data: beyond that it would hold the image itself."""
        super().build()
        size = min(self.config.queue, max(1, self.samples // 2)) if self.samples else self.config.queue
        self.queue = networks.Queue(size, int(str(self.config.projector).split("-")[-1]))

    def head(self, widths: list[int]) -> nn.Module:
        """Linear - norm - ReLU - Linear."""
        return networks.mlp(widths, norm=self.config.head_norm)

    def views(self) -> list[Pipeline]:
        """The student's strong view, then the teacher's."""
        strong = self.chosen_views(2)
        if self.config.teacher_view == "strong":
            return strong
        kept = tuple(op for op in strong[1].ops if isinstance(op, RandomResizedCrop | HorizontalFlip))
        return [strong[0], Pipeline(kept, name="weak")]

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Relations of both views to the queue, which then takes in the teacher's. A mean over local rows."""
        c = self.config
        strong, weak = self.seen(batch)
        q, k = self.project(strong), self.target(weak)
        terms = objectives.ressl_terms(
            q, k, self.queue.items, temperature_q=c.temperature_q, temperature_k=c.temperature_k
        )
        self.queue.push(gather(k))
        return terms
