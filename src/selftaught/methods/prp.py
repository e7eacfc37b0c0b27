"""PRP: at which rate was a clip sampled, and what lies between its frames (Yao et al., CVPR 2020, arXiv 2006.11476).

    L = L_rec + 0.1 CE,   L_rec = mean M (g(f(x)) - y)^2

x keeps every s-th frame of a stretch, y is the same stretch at twice the rate, M weighs what moves.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from selftaught import objectives
from selftaught.catalog.rules import Count, NonNegative
from selftaught.engine.method import LearningRateScaling, Optimizer, Schedule
from selftaught.methods._clips import ClipConfig, ClipMethod
from selftaught.networks.video_heads import PRPClassifier, PRPDecoder
from selftaught.views import DilatedClip, Recipe, View

__all__ = ["PRP"]

RATES = (1, 2, 4, 8)


@dataclass
class Config(ClipConfig):
    """PRP's options; the defaults are the authors' code."""

    encoder: str = "c3d"
    image_size: int = 112
    stride: int = 1
    augment: Literal["paper", "small", "crop", "none"] = "crop"
    rates: Literal[2, 3, 4] = 4
    """How many of the rates 1, 2, 4, 8 there are: the difficulty of the task."""
    width: Count = 512
    """Channels of both heads' first convolution, a multiple of 8."""
    rate_weight: NonNegative = 0.1
    """Weight of telling the rate."""
    motion: bool = True
    """Weigh the completion by what moves."""
    patch: Count = 16
    """Side of the patches of these weights in pixels."""
    optimizer: Optimizer = "sgd"
    lr: float = 0.01
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 5e-4
    schedule: Schedule = "constant"


PRESETS = {
    "ucf101": {"epochs": 300, "batch_size": 8},
    "benchmark": {"epochs": 200, "batch_size": 8, "encoder": "r2plus1d-18"},
    "laptop": {
        "encoder": "cnn-small-video", "frames": 8, "image_size": 32, "augment": "none", "rates": 3, "width": 32,
        "patch": 8, "optimizer": "adam", "lr": 3e-3, "weight_decay": 0.0, "schedule": "cosine", "rate_weight": 1.0,
        "steps": 300, "batch_size": 16,
    },
}  # fmt: skip


class PRP(ClipMethod):
    """PRP on clips of one or more channels."""

    slug = "prp"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The encoder and its two heads."""
        super().build()
        c, dim = self.config, int(self.encoder.dim)
        self.classifier = PRPClassifier(dim, c.rates, c.width)
        with torch.no_grad():  # how far the encoder reduces
            probe = torch.zeros(1, self.channels, c.frames, c.image_size, c.image_size)
            maps = copy.deepcopy(self.encoder).eval().maps(probe)
        growth = (2 * c.frames / maps.shape[2], c.image_size / maps.shape[3])
        self.decoder = PRPDecoder(dim, self.channels, c.width, growth)

    def recipe(self) -> Recipe:
        """The clip and, behind it, the stretch at twice its rate; fact ``rate``."""
        c = self.config
        dilated = DilatedClip(c.frames, rates=RATES[: c.rates])
        return Recipe((View("clip", "clip", (dilated, *self.augmentation())),))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Tell the rate and complete the clip."""
        c, rate = self.config, batch["clip.rate"]
        clip, fine = batch["clip"].split([c.frames, 2 * c.frames], dim=2)
        target, flags = objectives.prp_target(clip, fine, rate == 0)
        maps = self.encoder.maps(clip)
        out = self.decoder(maps, tuple(target.shape[2:]))
        mask = objectives.motion_mask(target, patch=c.patch) if c.motion else None
        return objectives.prp_terms(
            out, target, self.classifier(maps), rate, mask=mask, flags=flags, weight=c.rate_weight
        )
