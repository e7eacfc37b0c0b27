"""RotNet on clips: by how many quarter turns is a whole clip rotated (Jing et al., 2018, arXiv 1811.11387).

L = -log softmax(W h)_r,   r the number of quarter turns that all frames of the clip were turned by
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught import objectives
from selftaught.engine.method import LearningRateScaling, Optimizer
from selftaught.methods._clips import ClipConfig, ClipMethod
from selftaught.views import Recipe, TemporalCrop, View

__all__ = ["VideoRotNet"]


@dataclass
class Config(ClipConfig):
    """RotNet's options; the defaults are the video benchmark's, with a learning rate of ours (it names none)."""

    encoder: str = "resnet3d-18"
    image_size: int = 112
    stride: int = 1
    augment: Literal["paper", "small", "crop", "none"] = "crop"
    rotations: Literal[2, 3, 4] = 4
    """How many rotations there are, from 0 degrees on: the difficulty of the task."""
    every_rotation: bool = False
    """All rotations of every clip in one batch; without it one for each clip."""
    optimizer: Optimizer = "sgd"
    lr: float = 0.01
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 5e-4


PRESETS = {
    "benchmark": {"epochs": 200, "batch_size": 32},
    "laptop": {
        "encoder": "cnn-small-video", "frames": 8, "stride": 2, "image_size": 32, "augment": "none",
        "optimizer": "adam", "lr": 3e-3, "weight_decay": 0.0, "steps": 400, "batch_size": 16,
    },
}  # fmt: skip


class VideoRotNet(ClipMethod):
    """RotNet on clips of one or more channels."""

    slug = "video-rotnet"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The encoder and the linear layer over its features."""
        super().build()
        self.head = nn.Linear(int(self.encoder.dim), self.config.rotations)

    def recipe(self) -> Recipe:
        """One square clip."""
        c = self.config
        return Recipe((View("clip", "clip", (TemporalCrop(c.frames, c.stride), *self.augmentation())),))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Turn the clips, ask by how much."""
        clips, count = batch["clip"], self.config.rotations
        if self.config.every_rotation:
            turned, turns = objectives.video_rotnet_all(clips, count)
        else:
            turns = torch.randint(count, (len(clips),), device=clips.device)
            turned = objectives.rotate_clips(clips, turns)
        return objectives.video_rotnet_terms(self.head(self.encoder(turned)), turns)
