"""GroCo: sort every positive above the hardest negatives (Shvetsova et al., ICCV 2023, arXiv 2301.02009).

    s = [the 10 largest cos(z_i^a, sg z_j^a), j != i;  cos(z_i^a, sg z_i^p), p the other large crops], groups ascending
    P = relaxed sorting network of s,     r_e = sum of P[e, ranks of the positives],
    L = mean over views a, images i, entries e of  BCE(r_e, [e is a positive])

No temperature and no softmax over the batch: what counts is whether a positive stands above the negatives, not by how
much. The projector ends in a BatchNorm without scale and shift: without it, small runs start with all similarities near
1 and stay there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, Positive, Range
from selftaught.engine.distributed import gather
from selftaught.engine.method import Optimizer
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.methods._multi_crop import MultiCrop, MultiCropConfig
from selftaught.views import GaussianBlur, Pipeline

__all__ = ["GroCo"]


@dataclass
class Config(MultiCropConfig, JointEmbeddingConfig):
    """GroCo's options; the defaults are the paper's ImageNet recipe of two views."""

    optimizer: Optimizer = "sgd"
    lr: float = 6.0
    weight_decay: float = 1e-6
    warmup_epochs: float = 1.0
    projector: str = "2048-2048-2048"
    crop: float = 0.14
    one_forward: bool = False
    local_crops: int = 0
    n_pos_augs: Annotated[int, Range(2)] = 2
    """Large crops per image, 2 or more: anchors and positives; small ones are anchors only."""
    topk_neg: Count = 10
    """Hardest negatives of every anchor; a batch needs one image more."""
    steepness: Positive = 1.0
    """Steepness of the relaxed swaps."""
    relaxation: Literal["cauchy", "logistic", "reciprocal", "optimal"] = "cauchy"
    """Distribution function of a swap."""
    network: Literal["odd_even", "bitonic"] = "odd_even"
    """Sorting network."""
    stop_grad: bool = True
    """Only the anchor of a pair gets a gradient."""
    pre_order: bool = True
    """Sort positives and negatives among themselves before the network."""
    objective: Literal["groco", "nt_xent", "nt_xent_top"] = "groco"
    """nt_xent: the baseline over all pairs of views; nt_xent_top: with topk_neg and stop_grad."""
    temperature: Positive = 0.1
    """Temperature of the baselines."""


PRESETS = {
    "imagenet": {"epochs": 100, "batch_size": 1024},
    "imagenet-200": {"lr": 3.0, "warmup_epochs": 10.0, "epochs": 200, "batch_size": 1024},
    "imagenet-800": {"lr": 1.5, "warmup_epochs": 10.0, "epochs": 800, "batch_size": 1024},
    "imagenet-4-views": {"n_pos_augs": 4, "lr": 24.0, "lr_scaling": "none", "epochs": 100, "batch_size": 1024},
    "imagenet-multi-crop": {"local_crops": 6, "warmup_epochs": 10.0, "epochs": 100, "batch_size": 1024},
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-256-128", "augment": "small", "crop": 0.2,
        "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0, "steps": 2000,
        "batch_size": 128,
    },
    "laptop-series": {
        "encoder": "resnet1d", "projector": "128-128-128", "optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-6,
        "lr_scaling": "none", "warmup_epochs": 0.0, "epochs": 60, "batch_size": 256,
    },
}  # fmt: skip


class GroCo(JointEmbedding, MultiCrop):
    """GroCo on images of any number of channels, or (without small crops) on sensor series; its baselines."""

    slug = "groco"
    config_class = Config
    config: Config

    def head(self, widths: list[int]) -> nn.Module:
        """Linear-BN-ReLU for every hidden layer, then a linear layer and a BatchNorm without scale and shift.

        The paper freezes the last layer's bias at random values: the BatchNorm after it takes any bias out again.
        """
        return networks.mlp(widths, norm="bn", hidden_bias=False, out_bias=False, last_norm=True, last_affine=False)

    # ---- views -----------------------------------------------------------------------------------------------
    def paper_views(self) -> list[Pipeline]:
        """Large crops: every other one always blurred, the others seldom blurred and sometimes solarised."""
        return list(views.barlow_twins(self.config.image_size, scale=(self.config.crop, 1.0)))

    def views(self) -> list[Pipeline]:
        """The large crops, then the small ones."""
        return self.chosen_views(self.config.n_pos_augs) + self.local_views(self.config.local_crops)

    def local_views(self, count: int) -> list[Pipeline]:
        """Small crops: as the first large one, but blurred every other time (where it is blurred at all)."""
        ops = (GaussianBlur(0.5) if isinstance(op, GaussianBlur) else op for op in self.chosen_views(1)[0].ops)
        view = Pipeline(tuple(ops))
        return [self.smaller(view, f"local {i + 1}") for i in range(count)]

    def seen(self, batch: dict[str, Any]) -> list[Tensor]:
        """All crops; a series is augmented as often as there are large crops."""
        if self.spatial:
            return super().seen(batch)
        made: list[Tensor] = []
        while len(made) < self.config.n_pos_augs:
            made += self.augmented_series(batch)
        return made[: self.config.n_pos_augs]

    # ---- training --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Project every crop, gather over processes, sort; and how well two large crops agree."""
        zs = [gather(z) for z in self.embed_views(self.seen(batch))]
        agreement = cosine_similarity(zs[0].detach().float(), zs[1].detach().float()).mean()
        return {"loss": self.compare(zs), "agreement": agreement}

    def compare(self, zs: list[Tensor]) -> Tensor:
        """The chosen objective of the gathered projections of all crops, large ones first."""
        c = self.config
        if c.objective == "groco":
            return objectives.groco(
                *zs,
                n_pos_augs=c.n_pos_augs,
                topk_neg=c.topk_neg,
                steepness=c.steepness,
                relaxation=c.relaxation,
                network=c.network,
                stop_grad=c.stop_grad,
                pre_order=c.pre_order,
            )
        top = c.objective == "nt_xent_top"
        return objectives.nt_xent_pairs(
            *zs,
            temperature=c.temperature,
            n_pos_augs=c.n_pos_augs,
            topk_neg=c.topk_neg if top else None,
            stop_grad=top and c.stop_grad,
        )

    def frozen_at_first(self) -> tuple[nn.Module, bool]:
        """Nothing waits."""
        return self.projector, False
