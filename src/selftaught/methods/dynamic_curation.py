"""Dynamic dataset curation: DINO from scratch on a part of the archive that its own features choose again and again.

    every T_s epochs from epoch T_w on:
        F = l2norm(teacher's features of the whole archive)         no augmentation
        clusters of clusters of a random part of F; every sample to its leaf
        rho |D| samples, balanced between clusters level by level; within a leaf by the diversity eta

The loss is DINO's; only what is sampled changes. A sample that was dropped can come back. Any other method takes the
same choice by ``--curate``. Kerdreux et al. 2025, arXiv 2504.06962; clusters after Vo et al. 2024, arXiv 2405.15613.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from selftaught import views
from selftaught.engine.reselection import Reselection, ReselectionOptions
from selftaught.methods.dino import DINO
from selftaught.methods.dino import Config as DINOConfig
from selftaught.views import Pipeline

__all__ = ["DynamicCuration"]


@dataclass
class Config(ReselectionOptions, DINOConfig):
    """Options of dynamic curation; DINO's are the published recipe, those of the choice the sheet's starting points."""

    augment: Literal["paper", "dino", "small", "grey", "mild"] = "paper"  # type: ignore[assignment]
    """Views: paper for images from above (crop, turns, mild brightness and contrast, blur), dino with its colours,
    small (no blur), grey (crop, flip, brightness, contrast), mild (small turns and shifts)."""
    teacher_temperature: float = 0.07
    teacher_warmup_epochs: float = 30.0
    selection_features: Literal["teacher", "student"] = "teacher"
    """Whose features choose; in short runs the teacher lags far behind the student."""
    selection_layer: Literal["backbone", "bottleneck"] = "backbone"
    """Features before the head, or the head's bottleneck."""


_OCEAN = {"image_size": 256, "crop": 0.25, "epochs": 100, "batch_size": 1024, "clip": 3.0}
PRESETS = {
    "oceansar-resnet50": {**_OCEAN, "encoder": "resnet50"},
    "oceansar-vit-s16": {**_OCEAN, "encoder": "vit_small_patch16_224"},
    "oceansar-vit-s8": {**_OCEAN, "encoder": "vit_small_patch8_224"},
    "oceansar-vit-b8": {**_OCEAN, "encoder": "vit_base_patch8_224"},
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-256-64", "head_norm": "bn",
        "prototypes": 256, "augment": "grey", "crop": 0.3, "local_crops": 2, "target_decay": 0.99, "lr": 4e-3,
        "weight_decay": 0.05, "final_weight_decay": 0.05, "final_lr": 0.0, "warmup_epochs": 1.0, "freeze_epochs": 1.0,
        "teacher_temperature": 0.04, "teacher_warmup_epochs": 0.0, "keep": "student", "selection_features": "student",
        "rho": 0.3, "select_after": 10, "select_every": 20, "steps": 1000, "batch_size": 128,
    },
}  # fmt: skip


class DynamicCuration(DINO):
    """DINO that learns from a part of its archive, chosen anew by its own features."""

    slug = "dynamic-curation"
    config_class = Config
    config: Config
    modalities = ("image",)
    default_data = "fashion-mnist?n=6000&imbalance=0.02"

    def build(self) -> None:
        """DINO's networks, and what chooses the samples."""
        super().build()
        self.reselection = Reselection(self.config)

    def paper_views(self) -> list[Pipeline]:
        """Two equal views of images from above, or DINO's."""
        c = self.config
        return super().paper_views() if c.augment == "dino" else list(views.overhead(c.image_size, scale=(c.crop, 1.0)))

    def selection_features(self, batch: dict[str, Any]) -> Tensor:
        """Features (N, D) of teacher or student, before the head or in its bottleneck."""
        c, copy = self.config, self.momentum.average
        encoder, head = (self.encoder, self.projector) if c.selection_features == "student" else (copy[0], copy[1])  # type: ignore[index]
        h = encoder(self.inputs(batch))
        return h if c.selection_layer == "backbone" else head.body(h)  # type: ignore[operator]
