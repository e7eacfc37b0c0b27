"""VCOP: in which order are the clips of a video (Xu et al., CVPR 2019).

    h_ij = ReLU(W_1 [f_i; f_j]) for i < j,   L = -log softmax(W_2 dropout([h_ij ...]))_m

n clips of a video are shuffled; m is the number of their order among all n!, counted as the dictionary does.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from selftaught import objectives
from selftaught.catalog.rules import Count, Natural, Range, Share
from selftaught.engine.method import LearningRateScaling, Optimizer, Schedule
from selftaught.methods._clips import ClipConfig, ClipMethod
from selftaught.networks.video_heads import VCOPHead
from selftaught.views import ClipSequence, Recipe, View

__all__ = ["VCOP"]


@dataclass
class Config(ClipConfig):
    """VCOP's options; the defaults are the authors' code."""

    encoder: str = "r2plus1d-10"
    image_size: int = 112
    stride: int = 1
    augment: Literal["paper", "small", "crop", "none"] = "small"
    clips: Annotated[int, Range(2, 6)] = 3
    """Clips to put in order: the difficulty of the task."""
    gap: Natural = 8
    """Frames of the video between the end of a clip and the start of the next."""
    hidden: Count = 512
    """Width of a pair's layer."""
    dropout: Share = 0.5
    """Share of the pairs' features that is dropped."""
    optimizer: Optimizer = "sgd"
    lr: float = 1e-3
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 5e-4
    schedule: Schedule = "constant"


PRESETS = {
    "ucf101": {"epochs": 300, "batch_size": 8},
    "benchmark": {"epochs": 200, "batch_size": 8, "encoder": "r2plus1d-18"},
    "laptop": {
        "encoder": "cnn-small-video", "frames": 4, "stride": 2, "gap": 4, "image_size": 32, "augment": "none",
        "hidden": 128, "dropout": 0.0, "optimizer": "adam", "lr": 3e-3, "weight_decay": 0.0, "schedule": "cosine",
        "steps": 500, "batch_size": 16,
    },
}  # fmt: skip


class VCOP(ClipMethod):
    """VCOP on clips of one or more channels."""

    slug = "vcop"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The shared encoder and the head over pairs of clips."""
        super().build()
        c = self.config
        self.head = VCOPHead(int(self.encoder.dim), c.clips, c.hidden, c.dropout)

    def recipe(self) -> Recipe:
        """The clips in time's order, ``clip 1`` to ``clip n``, each augmented in its own way."""
        c = self.config
        sequence = ClipSequence(c.frames, c.stride, clips=c.clips, gap=c.gap)
        ops = self.augmentation()
        views = [View(f"clip {k + 1}", "_clips", (self.part(k), *ops)) for k in range(c.clips)]
        return Recipe((View("_clips", "clip", (sequence,)), *views))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Embed each clip, shuffle, ask for the order."""
        count = self.config.clips
        clips = torch.stack([batch[f"clip {k + 1}"] for k in range(count)], dim=1)
        features = self.encoder(clips.flatten(0, 1)).unflatten(0, (len(clips), count))
        labels = torch.randint(factorial(count), (len(clips),), device=clips.device)
        return objectives.vcop_terms(self.head(objectives.shuffle_clips(features, labels)), labels)
