"""What the pretext tasks share: one view of an image, a question about it that its pixels answer, a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.engine.method import LearningRateScaling
from selftaught.methods._encoder import EncoderConfig, EncoderMethod, accuracy
from selftaught.networks import plain_vit
from selftaught.views import HorizontalFlip, Pipeline, RandomResizedCrop


@dataclass
class PretextConfig(EncoderConfig):
    """Options of the pretext tasks; by default the transformer and the optimiser that the survey gives all methods."""

    encoder: str = "vit_small_patch16_224"
    lr: float = 5e-4
    lr_scaling: LearningRateScaling = "linear"
    weight_decay: float = 1e-4
    warmup_epochs: float = 10.0
    crop: float = 0.2


class Pretext(EncoderMethod):
    """Base of the pretext tasks: a subclass gives the questions, and the classifier that answers."""

    config_class = PretextConfig
    config: PretextConfig
    modalities = ("image",)
    compares = False
    encoder: nn.Module

    def views(self) -> list[Pipeline]:
        """One view per image."""
        return self.chosen_views(1)

    def paper_views(self) -> list[Pipeline]:
        """Crop and flip."""
        c = self.config
        return [Pipeline((RandomResizedCrop(c.image_size, (c.crop, 1.0)), HorizontalFlip()), name="view")]

    def questions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is shown, made of a view (N, C, H, W), and the right answers (int64)."""
        raise TypeError(f"{type(self).__name__} asks nothing")

    def answers(self, shown: Tensor) -> Tensor:
        """Logits of the answers to :meth:`questions`."""
        raise TypeError(f"{type(self).__name__} answers nothing")

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The task's loss."""
        raise TypeError(f"{type(self).__name__} defines no objective")

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Ask, answer, compare; a mean over the rows of this process."""
        with torch.no_grad():
            shown, labels = self.questions(batch["views"][0])
        logits = self.answers(shown)
        return {"loss": self.objective(logits, labels), "accuracy": accuracy(logits, labels)}

    # ---- transformers that see parts of an image ---------------------------------------------------------------
    def encoder_options(self, name: str) -> dict[str, Any]:
        """A plain vision transformer takes images of several sizes, whole ones and tiles."""
        return {"dynamic_img_size": True} if plain_vit(name) else {}

    @property
    def patch(self) -> int:
        """Side of the encoder's patches; 1 for a network without patches."""
        embedding = getattr(getattr(self.encoder, "model", None), "patch_embed", None)
        return int(embedding.patch_size[0]) if embedding is not None and plain_vit(self.config.encoder) else 1
