"""CLIP: images and their texts find each other among a batch (Radford et al., ICML 2021, arXiv 2103.00020).

    L = ( CE(s Z_I Z_T^T) + CE(s Z_T Z_I^T) ) / 2,      row i's answer is i, s learnt

Z are linear projections of the two towers' features, of length 1. What one keeps finds images by words and words for
images, and classifies by the names of classes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from selftaught.methods._dual import DualConfig, DualMethod

__all__ = ["CLIP"]


@dataclass
class Config(DualConfig):
    """CLIP's options; the defaults are the paper's for ViT-B/32."""

    encoder: str = "vit_base_patch32_224"
    dim: int = 512
    crop: float = 0.9
    weight_decay: float = 0.2
    warmup_epochs: float = 0.15


PRESETS = {
    "vit-b32": {"epochs": 32, "batch_size": 32768},
    "resnet50": {
        "encoder": "resnet50", "dim": 1024, "beta2": 0.999, "epochs": 32, "batch_size": 32768,
    },
    "cc3m": {
        "encoder": "resnet50", "dim": 256, "crop": 0.5, "text_layers": 6, "lr": 3e-3, "weight_decay": 0.5,
        "warmup_epochs": 1.0, "final_lr": 0.0033, "epochs": 32, "batch_size": 4096,
    },
    "fine-tune": {
        "lr": 1e-5, "weight_decay": 0.05, "warmup_epochs": 0.5, "freeze_norms": True, "held_out": 0.1, "patience": 3,
        "interpolate": 0.5, "pieces": 64, "epochs": 10, "batch_size": 1024,
    },
    "laptop": {
        "encoder": "cnn-small", "image_size": 0, "dim": 128, "crop": 0.7, "tokeniser": "words-4096", "context": 16,
        "text_width": 128, "text_heads": 4, "text_layers": 2, "lr": 2e-3, "weight_decay": 0.1, "warmup_epochs": 1.0,
        "steps": 1000, "batch_size": 128,
    },
}  # fmt: skip


class CLIP(DualMethod):
    """CLIP on captioned images of any number of channels."""

    slug = "clip"
    config_class = Config
    config: Config

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Every image among all texts of the step, every text among all images."""
        image = self.model.embed_images(self.image_features(batch["image_global"]))
        text = self.model.embed_texts(self.text_features(batch["text_global"]))
        loss = self.contrast(image, text, temperature=self.model.temperature)
        return {"loss": loss, "scale": self.model.scale.detach().exp()}
