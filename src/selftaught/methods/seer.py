"""SEER: SwAV on RegNetY, one pass over images that nobody selected (Goyal et al. 2022, arXiv 2202.08360).

The objective is SwAV's with sharper codes (eps 0.03, ten rounds of Sinkhorn's algorithm), a head without BatchNorm and
16,000 prototypes. New are the size of the encoder, up to 10 billion parameters, and of the stream: a billion images,
each seen once. For a stream whose clusters are far from equal in size a power law can take the place of the equal
partition (``power_law``). First version: arXiv 2103.01988.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selftaught.engine.checkpointing import recompute_activations
from selftaught.methods.swav import Config as SwAVConfig
from selftaught.methods.swav import SwAV

__all__ = ["SEER"]


@dataclass
class Config(SwAVConfig):
    """SEER's options; the defaults are its RegNetY-32GF. Encoders: regnety-400mf, -16gf, -32gf ... -256gf, -10b."""

    encoder: str = "regnety-32gf"
    image_size: int = 160
    local_crops: int = 4
    local_size: int = 96
    projector: str = "3712-128"
    head_norm: Literal["bn", "none"] = "none"
    prototypes: str = "16000"
    eps: float = 0.03
    iters: int = 10
    weight_decay: float = 1e-5
    warmup_epochs: float = 0.0436
    final_lr: float = 0.0
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""


PRESETS = {
    "uncurated-16gf": {"encoder": "regnety-16gf", "projector": "3024-128", "epochs": 1, "batch_size": 8192},
    "uncurated-32gf": {"epochs": 1, "batch_size": 8192},
    "uncurated-128gf": {
        "encoder": "regnety-128gf", "projector": "7392-128", "activation_checkpointing": True, "epochs": 1,
        "batch_size": 8192,
    },
    "uncurated-256gf": {
        "encoder": "regnety-256gf", "projector": "8192-8192-256", "activation_checkpointing": True, "epochs": 1,
        "batch_size": 8192,
    },
    "uncurated-10b": {
        "encoder": "regnety-10b", "projector": "8192-8192-256", "activation_checkpointing": True, "epochs": 1,
        "strategy": "fsdp", "precision": "16", "batch_size": 16, "devices": 8, "nodes": 62,
    },
    "small": {
        "encoder": "regnety-400mf", "projector": "440-128", "head_norm": "bn", "prototypes": "1000", "epochs": 100,
        "batch_size": 2048,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128", "head_norm": "bn", "augment": "small",
        "crop": 0.2, "local_crops": 2, "local_size": 0, "prototypes": "64", "freeze_steps": 0, "hard_steps": 200,
        "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0, "steps": 2000,
        "batch_size": 128,
    },
}  # fmt: skip


class SEER(SwAV):
    """SEER: SwAV with another size, another head and, if asked for, another prior."""

    slug = "seer"
    config_class = Config
    config: Config

    def build(self) -> None:
        """SwAV's networks, activations kept or not."""
        super().build()
        if self.config.activation_checkpointing:
            recompute_activations(self.encoder)
