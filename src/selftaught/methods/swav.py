"""SwAV: each crop predicts the cluster of another (Caron et al., NeurIPS 2020, arXiv 2006.09882).

    L = mean_{i in A} mean_{v != i}  -mean_b sum_k q_i[b,k] log softmax_k(<e_v[b], c_k> / tau)

e are unit-length embeddings of the crops, c_k unit-length prototypes. The codes q of the large crops A come from
Sinkhorn's algorithm: every sample's code sums to 1, every prototype is used as much as the others, so that the constant
answer is none. No gradient flows through codes. For small batches a queue of earlier embeddings takes part in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives
from selftaught.catalog.rules import Form, Natural, NonNegative, Positive
from selftaught.engine.distributed import gather, is_distributed, rank, world_size
from selftaught.engine.method import Optimizer
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.methods._multi_crop import MultiCrop, MultiCropConfig

__all__ = ["SwAV"]


@dataclass
class Config(MultiCropConfig, JointEmbeddingConfig):
    """SwAV's options; the defaults are the paper's ImageNet recipe."""

    optimizer: Optimizer = "lars"
    lr: float = 0.3
    weight_decay: float = 1e-6
    warmup_epochs: float = 10.0
    final_lr: float = 0.001
    crop: float = 0.14
    head_norm: Literal["bn", "none"] = "bn"
    """Normalisation after the projector's hidden layers."""
    prototypes: Annotated[str, Form(r"[1-9]\d*(-[1-9]\d*)*", "one number or several, as 300-300-300")] = "3000"
    """Number K of prototypes; several numbers, as 300-300-300, make several heads. At most half the samples that codes
    are made from (batch and queue)."""
    temperature: Positive = 0.1
    """Temperature tau of the predictions."""
    eps: Positive = 0.05
    """Smoothness of the codes."""
    iters: Natural = 3
    """Rounds of Sinkhorn's algorithm; 0 leaves out the equal partition (ablation: it collapses)."""
    power_law: NonNegative = 0.0
    """Exponent of a power law over the prototypes' sizes; 0 makes them equal."""
    hard_steps: Natural = 0
    """Optimiser steps with one-hot codes at the start."""
    queue: Natural = 0
    """Earlier embeddings of each large crop that take part in the codes; 0 for none. For batches below K."""
    queue_start: NonNegative = 15.0
    """Epoch from which the queue is filled; it is used once it is full."""
    freeze_steps: Natural = 313
    """Optimiser steps before the prototypes begin to learn."""


PRESETS = {
    "imagenet": {"epochs": 800, "batch_size": 4096},
    "imagenet-100": {"epochs": 100, "batch_size": 4096},
    "imagenet-small-batch": {
        "lr": 0.6, "warmup_epochs": 0.0, "queue": 3840, "freeze_steps": 5005, "epochs": 400, "batch_size": 256,
    },
    "imagenet-two-crops": {"local_crops": 0, "epochs": 400, "batch_size": 4096},
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128", "augment": "small", "crop": 0.2,
        "local_crops": 2, "prototypes": "64", "freeze_steps": 0, "hard_steps": 200, "optimizer": "adamw", "lr": 4e-3,
        "weight_decay": 0.05, "warmup_epochs": 1.0, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class SwAV(JointEmbedding, MultiCrop):
    """SwAV on images of any number of channels, or (without small crops) on sensor series."""

    slug = "swav"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, projector, prototypes and queues."""
        super().build()
        c = self.config
        width = int(str(c.projector).split("-")[-1])
        counts = [int(count) for count in str(c.prototypes).split("-")]
        self.prototypes = nn.ModuleList(networks.Prototypes(width, count) for count in counts)
        self.queues = nn.ModuleList(networks.Queue(c.queue, width) for _ in range(2 if c.queue else 0))

    def head(self, widths: list[int]) -> nn.Module:
        """Linear - norm - ReLU - Linear."""
        return networks.mlp(widths, norm=self.config.head_norm)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Swapped prediction, the mean over the heads; then the queues take in the large crops' embeddings.

        The loss is a mean over local rows; over processes only the prototypes' masses are summed.
        """
        crops = self.embed_crops(self.seen(batch), self.encoder, self.projector)
        z = [normalize(crop.to(torch.promote_types(crop.dtype, torch.float32)), eps=1e-8) for crop in crops]
        with torch.autocast(z[0].device.type, enabled=False):
            terms = [self._terms(head, z) for head in self.prototypes]
        if self.queues and self.epochs_done >= self.config.queue_start:
            for queue, embedding in zip(self.queues, z[:2], strict=True):
                queue.push(gather(embedding.detach()))  # type: ignore[operator]
        return {name: torch.stack([t[name] for t in terms]).mean() for name in terms[0]}

    def _terms(self, head: nn.Module, z: list[Tensor]) -> dict[str, Tensor]:
        c = self.config
        return objectives.swav_terms(
            *map(head, z),
            temperature=c.temperature,
            eps=c.eps,
            iters=c.iters,
            power_law=c.power_law,
            hard=self.steps < c.hard_steps,
            queue=[head(rows) for rows in self._queued()] or None,
            join=gather if is_distributed() else None,
        )

    def _queued(self) -> list[Tensor]:
        """This process' share of each queue, once they are full; else nothing."""
        if not self.queues or int(self.queues[0].filled) < self.config.queue:  # type: ignore[arg-type]
            return []
        return [queue.items.chunk(world_size())[rank()] for queue in self.queues]  # type: ignore[operator]

    def frozen_at_first(self) -> tuple[nn.Module, bool]:
        """The prototypes, for ``freeze_steps``."""
        return self.prototypes, self.steps < self.config.freeze_steps

    def after_step(self) -> None:
        """Prototypes of length 1."""
        for head in self.prototypes:
            head.normalise()  # type: ignore[operator]
