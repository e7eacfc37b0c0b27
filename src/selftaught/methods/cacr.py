"""CACR: attract the far positives most, repel the near negatives most (Zheng et al., TMLR 2023, arXiv 2105.03746).

With K + 1 views of every image, unit projections z and d(a, b) = ||a - b||^2:

    L =   mean_{v,i}       sum_{u != v} softmax_u(  t+ d(z_i^v, z_i^u) ) * alpha d(z_i^v, z_i^u)         attraction
        - mean_{v<u} mean_i sum_{j != i} softmax_j( -t- d(z_i^v, z_j^u) ) * beta  d(z_i^v, z_j^u)        repulsion

Both are expected costs: no positive competes with a negative in one softmax. The paper wires it in three ways: within
the batch, against a queue of a momentum copy's keys, and against the copy itself behind a predictor (as MoCo v3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, NonNegative, Positive, Range, Widths
from selftaught.engine.distributed import gather, gather_labels
from selftaught.engine.method import Optimizer
from selftaught.errors import UserError
from selftaught.methods._joint_embedding import JointEmbedding
from selftaught.methods._momentum import MomentumConfig, MomentumEmbedding
from selftaught.methods._multi_crop import MultiCrop, MultiCropConfig
from selftaught.methods._queue import fitted_queue
from selftaught.views import ColorJitter, Grayscale, HorizontalFlip, Pipeline, RandomResizedCrop

__all__ = ["CACR"]


@dataclass
class Config(MultiCropConfig, MomentumConfig):
    """CACR's options; the defaults are the paper's ImageNet recipe with a queue."""

    optimizer: Optimizer = "sgd"
    lr: float = 0.03
    weight_decay: float = 1e-4
    crop: float = 0.2
    one_forward: bool = False
    local_crops: int = 0
    """Small crops per image, beside the large views (host momentum); 0 for none."""
    local_targets: bool = False
    """Small crops pass through the momentum copy, too, and are targets; off: they are queries only."""
    host: Literal["batch", "queue", "momentum"] = "queue"
    """Negatives from the batch, from a queue of keys, or the momentum copy's keys of the batch (as MoCo v3)."""
    objective: Literal["cacr", "supervised", "simclr", "hcl"] = "cacr"
    """supervised: positives are all images of the class; baselines: simclr, hcl (beta 0: debiased). Host batch only."""
    positives: Count = 4
    """Positives K of every view; K + 1 views are made of an image."""
    tau_pos: NonNegative = 1.0
    """Inverse temperature t+ of the positives' weights."""
    tau_neg: NonNegative = 2.0
    """Inverse temperature t- of the negatives' weights."""
    alpha: NonNegative = 1.0
    """Factor of the attraction."""
    beta: NonNegative = 1.0
    """Factor of the repulsion."""
    choice: Literal["full", "without_w1", "without_w2", "none"] = "full"
    """Uniform weights of the positives (without_w1), the negatives (without_w2) or both (hosts batch and queue)."""
    cost: Literal["euclidean", "rbf"] = "euclidean"
    """Cost of the negatives (hosts batch and momentum)."""
    t: Positive = 2.0
    """Width of the rbf cost (host batch)."""
    tau_plus: Annotated[float, Range(0, below=1)] = 0.0
    """Debiasing: chance that a negative is of the query's class (host batch, Euclidean cost)."""
    detach_weights: bool = False
    """No gradient through the weights (host batch; the others never have it)."""
    symmetric: bool = False
    """Repulsion in both orders of each pair of views (host batch)."""
    intra_batch: bool = True
    """The batch's own queries are negatives beside the queue."""
    queue: Count = 65536
    """Keys in the queue; at most half the training set is taken."""
    temperature: Positive = 1.0
    """Temperature of the host momentum, or of the baselines' softmax."""
    reduction: Literal["default", "mean", "sum"] = "default"
    """Over samples with host momentum: default is the authors' mean for rbf, sum for Euclidean costs."""
    predictor: Widths = "4096-256"
    """Widths of the predictor's layers (host momentum)."""
    target_decay: float = 0.999
    target_schedule: Literal["cosine", "constant"] = "constant"


PRESETS = {
    "imagenet": {"epochs": 200, "batch_size": 256},
    "imagenet-moco-v3": {
        "host": "momentum", "cost": "rbf", "positives": 1, "projector": "4096-256", "target_decay": 0.996,
        "target_schedule": "cosine", "optimizer": "lars", "lr": 0.3, "weight_decay": 1.5e-6, "warmup_epochs": 10.0,
        "epochs": 1000, "batch_size": 4096,
    },
    "imagenet-moco-v3-vit": {
        "host": "momentum", "cost": "rbf", "positives": 1, "encoder": "vit_base_patch16_224",
        "projector": "4096-4096-256", "temperature": 0.2, "target_decay": 0.99, "target_schedule": "cosine",
        "crop": 0.08, "optimizer": "adamw", "lr": 1.5e-4, "weight_decay": 0.1, "warmup_epochs": 40.0,
        "epochs": 300, "batch_size": 4096,
    },
    "cifar10": {
        "host": "batch", "encoder": "alexnet-small", "image_size": 32, "projector": "128", "tau_neg": 0.9, "lr": 0.12,
        "schedule": "step", "decay_every": 0.775, "decay_factor": 0.1, "epochs": 200, "batch_size": 128,
    },
    "cifar100": {
        "host": "batch", "encoder": "alexnet-small", "image_size": 32, "projector": "128", "lr": 0.12,
        "schedule": "step", "decay_every": 0.775, "decay_factor": 0.1, "epochs": 200, "batch_size": 128,
    },
    "stl10": {
        "host": "batch", "encoder": "alexnet-small", "image_size": 64, "projector": "128", "lr": 0.12,
        "schedule": "step", "decay_every": 0.775, "decay_factor": 0.1, "epochs": 200, "batch_size": 128,
    },
    "laptop": {
        "host": "batch", "positives": 2, "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128",
        "predictor": "512-128", "queue": 4096, "target_decay": 0.99, "augment": "small", "optimizer": "adamw",
        "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0, "one_forward": True, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class CACR(MomentumEmbedding, MultiCrop):
    """CACR in its three wirings, with its ablations and SimCLR's loss as baselines, on images of any channels."""

    slug = "cacr"
    config_class = Config
    config: Config
    queue: networks.Queue

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Encoder and projector; momentum copy, queue and predictor where the host has them."""
        c = self.config
        self.check_options()
        if c.host == "batch":
            JointEmbedding.build(self)
            return
        super().build()
        width = int(str(c.projector).split("-")[-1])
        if c.host == "queue":
            self.queue = fitted_queue(c.queue, width, self.samples)
            return
        widths = [int(w) for w in str(c.predictor).split("-")]
        if widths[-1] != width:
            raise UserError(f"predictor={c.predictor}: it must end with the projector's width {width}")
        self.predictor = networks.mlp([width, *widths], hidden_bias=False, out_bias=False)

    def check_options(self) -> None:
        """Refuse options that the host has no meaning for.

        Raises:
            UserError: it names the option and the mend.
        """
        c = self.config
        if c.objective != "cacr" and c.host != "batch":
            raise UserError(f"objective={c.objective} goes with host=batch, not {c.host}")
        if c.objective == "hcl" and c.positives != 1:
            raise UserError("objective=hcl compares two views: use positives=1")
        if c.objective == "supervised" and self.classes < 2:
            raise UserError("objective=supervised learns from labels: give data with at least two classes")
        if c.cost == "rbf" and (c.host == "queue" or c.objective == "supervised"):
            raise UserError("cost=rbf goes with the hosts batch and momentum, without classes")
        if c.choice != "full" and c.host == "momentum":
            raise UserError(f"choice={c.choice} goes with the hosts batch and queue")
        if c.local_crops and c.host != "momentum":
            raise UserError("local_crops goes with host=momentum")

    def head(self, widths: list[int]) -> nn.Module:
        """The projector of the host: MoCo v2's without BatchNorm, MoCo v3's, or Linear-BN-ReLU-Linear."""
        if self.config.host == "queue":
            return networks.mlp(widths, norm="none")
        if self.config.host == "momentum":
            return networks.mlp(widths, hidden_bias=False, out_bias=False, last_norm=True, last_affine=False)
        return networks.mlp(widths, hidden_bias=False)

    def frozen_at_first(self) -> tuple[nn.Module, bool]:
        """Nothing waits."""
        return self.projector, False

    def after_step(self) -> None:
        """The momentum copy moves, where there is one."""
        if self.config.host != "batch":
            super().after_step()

    # ---- views -----------------------------------------------------------------------------------------------
    def paper_views(self) -> list[Pipeline]:
        """The host's: MoCo v2's or v3's recipe; on small images crop, flip, strong jitter always, grey."""
        c = self.config
        scale = (c.crop, 1.0)
        if c.host == "queue":
            return list(views.dcl(c.image_size, scale=scale, blur=0.5))
        if c.host == "momentum":
            return list(views.barlow_twins(c.image_size, scale=scale))
        jitter = ColorJitter(0.4, 0.4, 0.4, 0.4, p=1.0)
        ops = (RandomResizedCrop(c.image_size, scale), HorizontalFlip(), jitter, Grayscale(0.2))
        return [Pipeline(ops, name="view")]

    def views(self) -> list[Pipeline]:
        """K + 1 views, then the small crops."""
        return self.chosen_views(self.config.positives + 1) + self.local_views(self.config.local_crops)

    # ---- the loss --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The host's."""
        hosts = {"batch": self.within_batch, "queue": self.against_queue, "momentum": self.against_copy}
        return hosts[self.config.host](batch)

    def within_batch(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """All views of all images (of all processes) with one another."""
        c = self.config
        z = [unit(each) for each in self.embed_views(self.seen(batch))]
        if c.objective == "simclr":
            return {"loss": objectives.simclr(*z, temperature=c.temperature)}
        if c.objective == "hcl":
            loss = objectives.hcl(z[0], z[1], temperature=c.temperature, tau_plus=c.tau_plus, beta=c.beta)
            return {"loss": loss}
        weights: dict[str, Any] = {"tau_pos": c.tau_pos, "tau_neg": c.tau_neg, "alpha": c.alpha, "beta": c.beta}
        weights |= {"choice": c.choice, "detach_weights": c.detach_weights}
        if c.objective == "supervised":
            return {"loss": objectives.cacr_supervised(*z, labels=gather_labels(batch["label"]), **weights)}
        return objectives.cacr_terms(*z, cost=c.cost, t=c.t, tau_plus=c.tau_plus, symmetric=c.symmetric, **weights)

    def against_queue(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Queries towards the copy's keys of the other views, away from the queue; then the last keys enter it."""
        c, xs = self.config, self.seen(batch)
        q = [unit(each) for each in self.embed_views(xs)]
        k = [unit(each) for each in self.embed_views(xs, self.target)]
        terms = objectives.cacr_queue_terms(
            q, k, self.queue.items.clone(), tau_pos=c.tau_pos, tau_neg=c.tau_neg, alpha=c.alpha, beta=c.beta,
            choice=c.choice, intra_batch=c.intra_batch,
        )  # fmt: skip
        if self.training:
            self.queue.push(k[-1])
        return terms

    def against_copy(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The key of every large view in turn is the target of all other views' predictions; mean over targets."""
        c, xs = self.config, self.seen(batch)
        q = [unit(self.predictor(each)) for each in self.embed_views(xs)]
        seen = xs if c.local_targets else xs[: len(xs) - c.local_crops]
        targets = [unit(each) for each in self.embed_views(seen, self.target)]
        costs = [
            objectives.cacr_momentum(
                q[:u] + q[u + 1 :], key, temperature=c.temperature, cost=c.cost,
                reduction=None if c.reduction == "default" else c.reduction,
            )
            for u, key in enumerate(targets)
        ]  # fmt: skip
        agreement = (q[0] * targets[1]).sum(1).mean().detach()
        return {"loss": torch.stack(costs).mean(), "agreement": agreement}


def unit(z: Tensor) -> Tensor:
    """The gathered projections, scaled to length 1 in float32."""
    return normalize(gather(z).float(), eps=1e-8)
