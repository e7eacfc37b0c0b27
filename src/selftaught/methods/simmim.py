"""SimMIM: a ViT with mask tokens restores pixels by one layer (Xie et al., CVPR 2022, arXiv 2111.09886).

    L = sum |x - y| M / (sum M + 1e-5) / C,        M = 1 where a pixel was hidden

Squares of 32 pixels are hidden at random, a share of 0.6. Unlike MAE the encoder sees the hidden places too, as mask
tokens, and there is no decoder: simple, suited to any architecture with tokens, and slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from selftaught import objectives
from selftaught.catalog.rules import Range
from selftaught.methods._mask_tokens import MaskTokenConfig, MaskTokens

__all__ = ["SimMIM"]


@dataclass
class Config(MaskTokenConfig):
    """SimMIM's options; the defaults are the paper's ViT-B/16 on ImageNet."""

    mask: Literal["units", "block", "random", "grid", "attention"] = "units"
    mask_ratio: Annotated[float, Range(0, below=1)] = 0.6
    norm_pix: bool = False
    """Restore pixels normalised patch by patch."""
    lr: float = 1e-4
    warmup_epochs: float = 20.0


PRESETS = {
    "imagenet": {"epochs": 800, "batch_size": 2048},
    "imagenet-100": {"epochs": 100, "batch_size": 2048, "lr": 2e-4, "warmup_epochs": 10.0},
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "augment": "grey", "crop": 0.67, "lr": 2e-3, "lr_scaling": "none",
        "warmup_epochs": 1.0, "steps": 1000, "batch_size": 64,
    },
}  # fmt: skip


class SimMIM(MaskTokens):
    """SimMIM on images of any number of channels."""

    slug = "simmim"
    config_class = Config
    config: Config

    def answer_width(self) -> int:
        """The pixels of a patch."""
        height, width = self.vit.patch
        return self.channels * height * width

    def targets(self, x: Tensor) -> Tensor:
        """What is to be restored (N, C, H, W)."""
        if not self.config.norm_pix:
            return x
        return self.whole(objectives.normalised_patches(self.cut(x)))

    def objective(self, x: Tensor, answers: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """The mean absolute error of the hidden pixels."""
        pixels = mask[:, :, None].expand(-1, -1, answers.shape[2] // self.channels)
        return {"loss": objectives.simmim(self.whole(answers), self.targets(x), self.whole(pixels)[:, 0])}

    @torch.no_grad()
    def pictures(self, x: Tensor) -> dict[str, Tensor]:
        """What the report shows of images: the visible patches, restored and original pictures."""
        mask = self.hide(x)
        patches, answers = self.cut(x), self.answers(x, mask)
        if self.config.norm_pix:  # mean and deviation are not predicted: the patch's own
            answers = answers * patches.std(2, keepdim=True) + patches.mean(2, keepdim=True)
        restored = torch.where(mask[:, :, None], answers.to(patches.dtype), patches)
        return {"visible": self.visible(x, mask), "restored": self.whole(restored), "original": x}
