"""Rotation: an encoder learns which way up an image is (RotNet; Gidaris et al., ICLR 2018, arXiv 1803.07728).

    L = -1/K sum_y log softmax(F(g(x | y)))_y,        g(. | y) turns by y quarters, K = 4

All K copies of an image are in one batch. The turns are exact: nothing is interpolated, no corner turns black.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught import objectives
from selftaught.methods._pretext import Pretext, PretextConfig
from selftaught.views import transformations

__all__ = ["Rotation"]


@dataclass
class Config(PretextConfig):
    """Rotation's options; the defaults are the survey's for ViT-S/16 on ImageNet."""

    turns: Literal[4, 2] = 4
    """Rotations K to tell apart: four quarter turns, or two half turns (the paper's ablation)."""


PRESETS = {
    "imagenet": {"epochs": 100, "batch_size": 256},
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "crop": 0.4, "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0,
        "steps": 1500, "batch_size": 64,
    },
}  # fmt: skip


class Rotation(Pretext):
    """Rotation prediction on images of any number of channels."""

    slug = "rotation"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The encoder and a linear classifier of K turns."""
        super().build()
        self.answer = nn.Linear(int(self.encoder.dim), self.config.turns)  # type: ignore[arg-type]

    def encoder_options(self, name: str) -> dict[str, Any]:
        """Nothing: copies have the size of the image."""
        return {}

    def questions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All copies (N K, C, H, W), interleaved: row n K + y is image n turned by y."""
        turns = self.config.turns
        copies = transformations.copies(x, "rotation" if turns == 4 else "rotation2")
        return copies, torch.arange(turns, device=x.device).repeat(len(x))

    def answers(self, shown: Tensor) -> Tensor:
        """Logits (N K, K)."""
        return self.answer(self.encoder(shown))

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the turn."""
        return objectives.rotation(logits, labels)
