"""ScatSimCLR: SimCLR on a fixed scattering transform, with a pretext task beside it.

(Kinakh, Taran, Voloshynovskiy: ICCV workshops 2021, arXiv 2108.13939.)

    h = adapter(scattering(x)),   z = head(h),      L = NT-Xent(z1, z2) + lambda CE(pretext head(h of pretext images))

The scattering transform has nothing to learn and is stable under small deformations; the adapter on top of it is small.
The pretext images are made apart from the two views: each image in four orientations (which one?), augmented afterwards
as the first view is; or its nine tiles in one of 35 orders (which one?).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, Range
from selftaught.engine.distributed import gather
from selftaught.engine.method import LearningRateScaling, Optimizer, Schedule
from selftaught.errors import UserError
from selftaught.methods._encoder import accuracy
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.networks.adapter import ADAPTERS
from selftaught.views import HorizontalFlip, Pipeline, jigsaw

__all__ = ["ScatSimCLR"]

TURNS = 4


@dataclass
class Config(JointEmbeddingConfig):
    """ScatSimCLR's options; the defaults are the paper's for STL-10."""

    encoder: str = "scatsimclr-30"
    """scatsimclr-8, -12, -16, -30 or -45 (residual blocks), -2 for laptops; or a timm name, the paper's baseline."""
    image_size: int = 96
    projector: str = "2048-128"
    optimizer: Optimizer = "adam"
    lr: float = 3e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 1e-5
    schedule: Schedule = "cosine"
    temperature: Positive = 0.5
    """Temperature tau."""
    scales: Count = 2
    """J of the scattering transform: averages over 2^J pixels; the image's side must be a multiple."""
    angles: Count = 16
    """L of the scattering transform: orientations of the wavelets."""
    max_order: Literal[1, 2] = 2
    """Order of the scattering transform."""
    scat_bn: bool = False
    """Normalise the scattering coefficients; recommended from scratch, the authors' code does not."""
    colour: Literal["rgb", "ycbcr"] = "rgb"
    """Colour space that the scattering transform sees."""
    pretext: Literal["none", "rotation", "jigsaw"] = "rotation"
    """The second task."""
    lambda_: NonNegative = 0.3
    """Weight of the second task."""
    pretext_start_epoch: Natural = 0
    """Epochs without the second task: 0 as the authors' code, 40 as the paper."""
    permutations: Annotated[int, Range(2)] = 35
    """Orders that the jigsaw task tells apart."""
    embedding: Literal["h", "z", "concat"] = "h"
    """What evaluate and apply take: features, projection, or both; the delivered encoder always gives h."""


PRESETS = {
    "stl10": {"epochs": 1000, "batch_size": 64, "final_lr": 0.34},
    "stl10-ablation": {"epochs": 100, "batch_size": 256, "schedule": "constant", "encoder": "scatsimclr-12"},
    "cifar20": {"epochs": 1000, "batch_size": 64, "final_lr": 0.34, "image_size": 32},
    "laptop": {
        "encoder": "scatsimclr-2", "image_size": 0, "projector": "256-128", "augment": "small", "crop": 0.2,
        "angles": 4, "scat_bn": True, "temperature": 0.2, "optimizer": "adamw", "lr": 4e-3, "lr_scaling": "linear",
        "weight_decay": 0.05, "warmup_epochs": 1.0, "steps": 600, "batch_size": 128,
    },
}  # fmt: skip
"""The authors' rate follows a cosine over as many epochs as an epoch has batches: 0.34 of it is left after 1000 epochs
of STL-10, 0.99 after 100."""


class ScatSimCLR(JointEmbedding):
    """ScatSimCLR on images of any number of channels; with a timm encoder SimCLR with a second task."""

    slug = "scatsimclr"
    config_class = Config
    config: Config
    orders: Tensor

    def build(self) -> None:
        """Scattering encoder (or the baseline's), projection head, pretext head."""
        c = self.config
        if self.length is not None:
            raise UserError("scatsimclr learns from images; for series take simclr")
        if c.encoder in ADAPTERS:
            self.encoder = networks.scattering_encoder(
                c.encoder,
                channels=self.channels,
                image_size=c.image_size,
                scales=c.scales,
                angles=c.angles,
                max_order=c.max_order,
                scat_bn=c.scat_bn,
                colour=c.colour,
            )
            width: Any = self.encoder.dim
            self.projector = self.head([width, *(int(width) for width in str(c.projector).split("-"))])
        else:
            super().build()
        if c.pretext == "rotation":
            self.answer: nn.Module = networks.rotation_head(int(self.encoder.dim), TURNS)  # type: ignore[arg-type]
        elif c.pretext == "jigsaw":
            self.register_buffer("orders", jigsaw.permutations(c.permutations))
            self.answer = networks.JigsawHead(int(self.encoder.dim), c.permutations)  # type: ignore[arg-type]

    def head(self, widths: list[int]) -> nn.Module:
        """Linear-ReLU-Linear."""
        return networks.mlp(widths, norm="none")

    # ---- pretext images --------------------------------------------------------------------------------------
    def views(self) -> list[Pipeline]:
        """Two views; for rotation four more without a flip, for jigsaw the whole image."""
        c, pair = self.config, self.chosen_views(2)
        if c.pretext == "rotation":
            straight = Pipeline(tuple(op for op in pair[0].ops if not isinstance(op, HorizontalFlip)), name="pretext")
            return [*pair, *[straight] * TURNS]
        return [*pair, *views.plain(c.image_size)] if c.pretext == "jigsaw" else pair

    def puzzle(self, xs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Pretext images and right answers, from the views after the first two.

        Rotation: (4N, C, H, W), label k turned by k quarters clockwise, flipped afterwards at random, as in the
        authors' code (turning commutes with the crop of a square and with colour; with the flip it does not).
        Jigsaw: (9N, C, H, W) tiles, each enlarged to the image's size, pixels in [0, 1] without normalisation.
        """
        if self.config.pretext == "rotation":
            turned = torch.cat([torch.rot90(x, -k, (2, 3)) for k, x in enumerate(xs)])
            flips = [op.p for op in self.chosen_views(1)[0].ops if isinstance(op, HorizontalFlip)]
            flipped = torch.rand(len(turned), 1, 1, 1, device=turned.device) < (flips[0] if flips else 0.0)
            labels = torch.arange(TURNS, device=turned.device).repeat_interleave(len(xs[0]))
            return torch.where(flipped, turned.flip(3), turned), labels
        mean, std = self.pixel_mean[:, None, None], self.pixel_std[:, None, None]
        tiles = jigsaw.cut(xs[0] * std + mean, size=self.config.image_size)
        labels = torch.randint(len(self.orders), (len(tiles),), device=tiles.device)
        return jigsaw.shuffle(tiles, self.orders[labels]).flatten(0, 1), labels

    # ---- the objective ---------------------------------------------------------------------------------------
    @property
    def asks(self) -> bool:
        """Whether the second task is on: there is one, and its first epoch has come."""
        c = self.config
        if c.pretext == "none":
            return False
        return self.epochs_done >= c.pretext_start_epoch

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Contrast of the two views, and from its first epoch on the second task."""
        c, xs = self.config, batch["views"]
        z1, z2 = (gather(z) for z in self.embed_views(xs[:2]))
        agreement = (normalize(z1.detach().float()) * normalize(z2.detach().float())).sum(1).mean()
        if not self.asks:
            return objectives.scatsimclr_terms(z1, z2, temperature=c.temperature) | {"agreement": agreement}
        images, labels = self.puzzle(xs[2:])
        logits = self.answer(self.encoder(images))
        terms = objectives.scatsimclr_terms(z1, z2, logits, labels, temperature=c.temperature, lambda_=c.lambda_)
        return terms | {"agreement": agreement, "pretext_accuracy": accuracy(logits, labels)}

    def features(self, batch: dict[str, Any]) -> Tensor:
        """h (N, D), the projection z, or both."""
        h = super().features(batch)
        if self.config.embedding == "h":
            return h
        z = self.projector(h)
        return z if self.config.embedding == "z" else torch.cat([h, z], dim=1)
