"""MSN: masked views take the soft clusters of the whole view (Assran et al., ECCV 2022, arXiv 2204.07141).

    L = mean H(q, p_v) - lambda H(mean p),     p = softmax(z C^T / tau),  q = softmax(z_t C^T / tau_t)

z of views whose patches are partly left out, z_t of the momentum copy on another view with nothing left out, C
prototypes. Nothing is restored; the encoder computes only what it sees. The entropy keeps all prototypes in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, Range
from selftaught.engine.distributed import gather, gather_labels
from selftaught.errors import UserError
from selftaught.methods._momentum import MomentumConfig, MomentumEmbedding
from selftaught.methods._multi_crop import MultiCrop, MultiCropConfig
from selftaught.methods._weight_decay import CosineWeightDecay
from selftaught.networks.tokens import random_keep
from selftaught.views import Pipeline

__all__ = ["MSN"]


@dataclass
class Config(MultiCropConfig, MomentumConfig):
    """MSN's options; the defaults are the paper's ViT-S/16 on ImageNet."""

    encoder: str = "vit_small_patch16_224"
    lr: float = 1e-3
    weight_decay: float = 0.04
    final_weight_decay: NonNegative = 0.4
    """Weight decay at the end of the run, reached along half a cosine."""
    warmup_epochs: float = 15.0
    crop: float = 0.3
    local_crops: int = 10
    projector: str = "2048-2048-256"
    prototypes: Count = 1024
    """Prototypes K."""
    mask_ratio: Annotated[float, Range(0, below=1)] = 0.15
    """Share of the patches that a large anchor leaves out (0.7 for ViT-L)."""
    anchors: Count = 1
    """Large masked anchors per image, beside the small crops."""
    temperature: Positive = 0.1
    """Temperature tau of the anchors."""
    target_temperature: Positive = 0.025
    """Temperature tau_t of the target."""
    lambda_: NonNegative = 1.0
    """Weight of the entropy of the mean prediction."""
    sinkhorn: Natural = 0
    """Rounds of Sinkhorn's algorithm that even out the targets."""
    target_decay: float = 0.996
    keep: Literal["teacher", "student"] = "teacher"
    """Whose encoder is judged and delivered; in short runs the momentum copy lags far behind."""


PRESETS = {
    "imagenet": {"epochs": 800, "batch_size": 1024, "clip": 3.0},
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "projector": "256-64", "prototypes": 64, "augment": "grey",
        "crop": 0.3, "local_crops": 0, "anchors": 2, "mask_ratio": 0.3, "target_decay": 0.99, "keep": "student",
        "lr": 2e-3, "lr_scaling": "none", "weight_decay": 0.05, "final_weight_decay": 0.05, "warmup_epochs": 1.0,
        "steps": 600, "batch_size": 64, "clip": 3.0,
    },
}  # fmt: skip


class MSN(CosineWeightDecay, MomentumEmbedding, MultiCrop):
    """MSN on images of any number of channels."""

    slug = "msn"
    config_class = Config
    config: Config
    modalities = ("image",)

    def build(self) -> None:
        """Encoder and projector, their momentum copy, the prototypes."""
        super().build()
        width = int(str(self.config.projector).split("-")[-1])
        self.prototypes = networks.Prototypes(width, self.config.prototypes)

    def head(self, widths: list[int]) -> nn.Module:
        """Linear-BN-GELU layers, and a Linear at the end."""
        return networks.mlp(widths, activation="gelu")

    def encoder_options(self, name: str) -> dict[str, Any]:
        """See multi-crop.

        Raises:
            UserError: an encoder without patches.
        """
        if not networks.plain_vit(name):
            raise UserError(f"encoder={name}: {self.slug} leaves tokens out; use a ViT such as vit_small_patch16_224")
        return super().encoder_options(name)

    def views(self) -> list[Pipeline]:
        """The target's view, the large anchors, the small ones."""
        return self.chosen_views(1 + self.config.anchors) + self.local_views(self.config.local_crops)

    # ---- training --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Anchors against the target, gathered over processes: the entropy is of all rows."""
        c, crops = self.config, self.seen(batch)
        large = torch.cat(crops[1 : 1 + c.anchors])
        anchors = self.masked(large).chunk(c.anchors)
        if c.local_crops:
            anchors += tuple(self.embed_crops(crops[1 + c.anchors :], self.encoder, self.projector))
        z = torch.stack([gather(one) for one in anchors])
        return objectives.msn_terms(
            z, gather_labels(self.target(crops[0])), self.prototypes.weight, temperature=c.temperature,
            target_temperature=c.target_temperature, lambda_=c.lambda_, iterations=c.sinkhorn,
        )  # fmt: skip

    def masked(self, x: Tensor) -> Tensor:
        """Projections (N, D) of views whose patches are partly left out, drawn anew for every row."""
        vit: Any = self.encoder
        rows, columns = vit.grid
        keep = random_keep(len(x), rows * columns, self.config.mask_ratio, device=x.device)
        return self.projector(vit.tokens(x, keep)[0])

    # ---- what one keeps --------------------------------------------------------------------------------------
    def deliverable(self) -> nn.Module:
        """The momentum copy's encoder, or the trained one."""
        copy: Any = self.momentum.average
        return copy[0] if self.config.keep == "teacher" else self.encoder

    def features(self, batch: dict[str, Any]) -> Tensor:
        """h (N, D): the class token of the encoder that is kept."""
        return self.deliverable()(self.inputs(batch))
