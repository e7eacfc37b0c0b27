"""MoCo v2: find a view's key among a queue of past keys (He et al., CVPR 2020; Chen et al., 2020, arXiv 2003.04297).

    L = -mean_i log( exp(q_i.k_i / tau) / ( exp(q_i.k_i / tau) + sum_{n in queue} exp(q_i.n / tau) ) )

q is the unit projection of one view by the trained network, k that of the other view by its momentum copy,
xi <- m xi + (1 - m) theta. Keys change slowly, so those of past batches still compare: the number of negatives does not
depend on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, NonNegative, Positive
from selftaught.engine.distributed import gather, gather_labels
from selftaught.engine.method import Optimizer
from selftaught.methods._momentum import MomentumConfig, MomentumEmbedding, mixed_batches
from selftaught.methods._queue import fitted_queue, group_of, same_group
from selftaught.views import Pipeline

__all__ = ["MoCoV2"]


@dataclass
class Config(MomentumConfig):
    """MoCo v2's options; the defaults are the paper's ImageNet recipe."""

    optimizer: Optimizer = "sgd"
    lr: float = 0.03
    weight_decay: float = 1e-4
    crop: float = 0.2
    target_decay: float = 0.999
    target_schedule: Literal["cosine", "constant"] = "constant"
    temperature: Positive = 0.2
    """Temperature tau."""
    queue: Count = 65536
    """Keys in the queue; at most half the training set is taken."""
    objective: Literal["infonce", "dcl"] = "infonce"
    """dcl: the positive left out of the denominator."""
    symmetric: bool = False
    """Both views are queries, with a queue each; the loss is the mean of the two."""
    mask: Literal["none", "image", "class"] = "none"
    """Queue entries that are no negatives: of the same image, or of the same class (an oracle; needs labels)."""
    shuffle: bool = True
    """Several processes: mix the keys' batches, so that BatchNorm's statistics don't give the positive away."""
    input_mix: NonNegative = 0.0
    """Mix pairs of query images, with shares from Beta(a, a) of this a (i-Mix, a baseline); 0 mixes none."""


PRESETS = {
    "imagenet": {"epochs": 200, "batch_size": 256},
    "imagenet-800": {"epochs": 800, "batch_size": 256},
    "medmnist": {
        "encoder": "resnet50", "image_size": 32, "projector": "2048-256", "symmetric": True, "target_decay": 0.99,
        "target_final": 0.999, "target_schedule": "cosine", "lr": 0.3, "warmup_epochs": 10.0, "crop": 0.08,
        "epochs": 400, "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128", "queue": 4096, "mask": "image",
        "target_decay": 0.99, "augment": "small", "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05,
        "warmup_epochs": 1.0, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class MoCoV2(MomentumEmbedding):
    """MoCo v2 on images of any number of channels, or on sensor series."""

    slug = "moco-v2"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, projector, momentum copy, and a queue for each direction."""
        super().build()
        c = self.config
        width = int(str(c.projector).split("-")[-1])
        self.queues = nn.ModuleList(
            fitted_queue(c.queue, width, self.samples, labels=c.mask != "none") for _ in range(1 + c.symmetric)
        )

    def head(self, widths: list[int]) -> nn.Module:
        """Linear - ReLU - Linear, without BatchNorm."""
        return networks.mlp(widths, norm="none")

    def paper_views(self) -> list[Pipeline]:
        """Crop, flip, jitter (0.4, 0.4, 0.4, 0.1), grey 0.2, blur 0.5."""
        return list(views.dcl(self.config.image_size, scale=(self.config.crop, 1.0), blur=0.5))

    # ---- the loss --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Queries against keys and queue, one direction or both; then the keys enter the queue."""
        xs, own = self.seen(batch), group_of(batch, self.config.mask)
        directions = [(0, 1), (1, 0)][: len(self.queues)]
        mixed, partner, share = self.mix_inputs([xs[a] for a, _ in directions])
        queues: list[Any] = list(self.queues)
        queries = [normalize(q.float(), eps=1e-8) for q in self.embed_views(mixed)]
        keys = [normalize(k.float()) for k in self.embed_views([xs[b] for _, b in directions], self.keys)]
        found = []
        for q, k, queue in zip(queries, keys, queues, strict=True):
            known, mask = queue.items.clone(), same_group(own, queue)
            terms = self.contrast(q, k, known, mask)
            if partner is not None:
                other = self.contrast(q, k[partner], known, mask if mask is None else mask | mask[partner])
                terms = {name: share * terms[name] + (1 - share) * other[name] for name in terms}
            found.append(terms)
            queue.push(gather(k), None if own is None else gather_labels(own))
        return {name: torch.stack([terms[name] for terms in found]).mean(0) for name in found[0]}

    def contrast(self, q: Tensor, k: Tensor, queue: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The terms of one direction; a mean over local rows, so that only the queue crosses processes."""
        c = self.config
        return objectives.moco_v2_terms(
            q, k, queue, temperature=c.temperature, include_positive=c.objective == "infonce", mask=mask
        )

    def mix_inputs(self, xs: list[Tensor]) -> tuple[list[Tensor], Tensor | None, Tensor]:
        """The query images, each mixed with a partner's; who that is (None: nothing is mixed), the own share."""
        alpha = torch.full((), self.config.input_mix, device=self.device)
        if self.config.input_mix <= 0:
            return xs, None, alpha
        share = torch.distributions.Beta(alpha, alpha).sample()
        partner = torch.rand(len(xs[0]), device=self.device).argsort()
        return [share * x + (1 - share) * x[partner] for x in xs], partner, share

    @torch.no_grad()
    def keys(self, x: Tensor) -> Tensor:
        """The momentum copy's projections of a view, computed in batches that are mixed over the processes."""
        return mixed_batches(self.target, x, self.steps) if self.config.shuffle else self.target(x)
