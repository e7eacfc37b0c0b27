"""CVRL: two clips of a video agree, those of other videos do not (Qian et al., CVPR 2021, arXiv 2008.03800).

    L = L_a + L_b
    L_a = mean_i -log exp(z_i.z'_i / tau) / ( sum_k exp(z_i.z'_k / tau) + sum_{k != i} exp(z_i.z_k / tau) )

z and z' are the projections of two clips whose starts lie t frames apart, near ones more often; each clip is augmented
in its own way, all its frames alike. SimCLR for video: no momentum copy, no queue, no predictor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Positive, PositiveShare, Range, Widths
from selftaught.engine.distributed import gather
from selftaught.engine.method import Optimizer
from selftaught.errors import UserError
from selftaught.methods._clips import ClipConfig, ClipMethod
from selftaught.views import ClipPair, Op, Pipeline, Recipe, Solarize, View

__all__ = ["CVRL"]

_PICTURES = {"r3d-50": "resnet50", "r3d-101": "resnet101", "r3d-152": "resnet152"}


@dataclass
class Config(ClipConfig):
    """CVRL's options; the defaults are the official pre-training on Kinetics-600."""

    projector: Widths = "2048-2048-2048-128"
    """Widths of the projector's layers."""
    temperature: Positive = 0.1
    """Temperature tau of the softmax."""
    normalize_hidden: bool = True
    """Scale projections to length 1."""
    reduction: Literal["sum_views", "mean_views"] = "sum_views"
    """sum_views adds the terms of both clips (the code); mean_views takes their mean (SimCLR)."""
    interval: Literal["decreasing", "uniform", "increasing", "same", "apart"] = "decreasing"
    """How far apart the two clips start: its density over 0 to the longest; same: one clip twice; apart: never."""
    power: Annotated[float, Range(above=-1)] = 1.0
    """Power p of the decreasing and increasing densities; 1 is a straight line."""
    consistent: bool = True
    """Augment all frames of a clip alike; without it each frame is augmented anew."""
    views: Literal["code", "text"] = "code"
    """code: the first clip always blurred, the second seldom, and sometimes solarised; text: both blurred half the
    time."""
    norm_input: bool = False
    """Scale the encoder's features to length 1 before the projector."""
    head_momentum: PositiveShare = 0.003
    """Share of a batch in the running statistics of the projector's BatchNorm."""
    inflated: bool = False
    """Start from timm's ImageNet ResNet of the same blocks, its kernels repeated over time (r3d-50, -101, -152)."""
    optimizer: Optimizer = "sgd"
    lr: float = 0.08
    weight_decay: float = 1e-6
    warmup_epochs: float = 5.0


PRESETS = {
    "kinetics600": {
        "epochs": 200, "batch_size": 1024, "test_frames": 32, "test_size": 256, "test_clips": 10, "test_crops": 3,
        "normalize_feature": True,
    },
    "kinetics600-800": {
        "epochs": 800, "batch_size": 1024, "test_frames": 32, "test_size": 256, "test_clips": 10, "test_crops": 3,
        "normalize_feature": True,
    },
    "r3d-152-2x": {
        "epochs": 800, "batch_size": 1024, "encoder": "r3d-152-2x", "projector": "4096-4096-4096-128",
        "test_frames": 32, "test_size": 256, "test_clips": 10, "test_crops": 3, "normalize_feature": True,
    },
    "benchmark": {"epochs": 200, "batch_size": 64, "encoder": "r2plus1d-18", "image_size": 112, "stride": 1},
    "simclr-frames": {"epochs": 200, "batch_size": 1024, "frames": 1, "stride": 1},
    "inflated": {"epochs": 200, "batch_size": 1024, "inflated": True},
    "laptop": {
        "encoder": "cnn-small-video", "frames": 8, "stride": 2, "image_size": 32, "augment": "small", "flip": 0.0,
        "crop": 0.5, "projector": "128-64", "head_momentum": 0.1, "optimizer": "adam", "lr": 2e-3, "lr_scaling": "none",
        "warmup_epochs": 1.0, "steps": 400, "batch_size": 32,
    },
}  # fmt: skip


class CVRL(ClipMethod):
    """CVRL on clips of one or more channels."""

    slug = "cvrl"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The encoder and the projector."""
        super().build()
        c = self.config
        widths = [int(width) for width in c.projector.split("-")]
        self.projector = networks.mlp([int(self.encoder.dim), *widths], norm="bn", hidden_bias=False)
        for module in self.projector.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = c.head_momentum
        if c.inflated:
            self._inflate()

    def _inflate(self) -> None:
        c = self.config
        if c.encoder not in _PICTURES or self.channels != 3:
            raise UserError(f"inflated: there are pictures' weights for {', '.join(_PICTURES)} on RGB clips alone")
        picture = networks.encoder(_PICTURES[c.encoder], pretrained=True, stem="standard")
        networks.inflate(picture.model.state_dict(), self.encoder)

    # ---- views -----------------------------------------------------------------------------------------------
    def clip_views(self) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
        """What is done to the first and to the second clip."""
        c, ops = self.config, self.augmentation()
        if c.augment != "paper":
            return ops, ops
        if c.views == "text":
            return (*ops, self.blur(0.5)), (*ops, self.blur(0.5))
        return (*ops, self.blur(1.0)), (*ops, self.blur(0.1), Solarize(0.2))

    def recipe(self) -> Recipe:
        """Two clips of a video, ``one`` and ``two``."""
        c = self.config
        views = [View("_pair", "clip", (ClipPair(c.frames, c.stride, interval=c.interval, power=c.power),))]
        for place, (name, ops) in enumerate(zip(("one", "two"), self.clip_views(), strict=True)):
            if c.consistent:
                views.append(View(name, "_pair", (self.part(place), *ops)))
                continue
            views.append(View(f"_{name}", "_pair", (self.part(place),)))
            views.append(View(name, f"_{name}", Pipeline(ops, per_frame=True)))
        return Recipe(tuple(views))

    # ---- training --------------------------------------------------------------------------------------------
    def project(self, clips: Tensor) -> Tensor:
        """z (N, D) of clips (N, C, T, H, W)."""
        h = self.encoder(clips)
        return self.projector(nn.functional.normalize(h, dim=1) if self.config.norm_input else h)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Both clips through the network in one call, gathered over processes, compared."""
        c = self.config
        z1, z2 = self.project(torch.cat([batch["one"], batch["two"]])).chunk(2)
        return objectives.cvrl_terms(
            gather(z1), gather(z2), temperature=c.temperature, normalize_hidden=c.normalize_hidden,
            reduction=c.reduction,
        )  # fmt: skip
