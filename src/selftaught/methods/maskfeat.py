"""MaskFeat: a ViT with mask tokens predicts gradient histograms (HOG) (Wei et al., CVPR 2022, arXiv 2112.09133).

    L = mean over hidden i  mean_d (W h_i + b - t_i)_d^2,        t_i the HOG of patch i

Gradient orientations, normalised in contrast, are nearer to what a picture shows than its pixels, and cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selftaught import objectives
from selftaught.catalog.rules import Count, Natural
from selftaught.errors import UserError
from selftaught.methods._mask_tokens import MaskTokenConfig, MaskTokens

__all__ = ["MaskFeat"]


@dataclass
class Config(MaskTokenConfig):
    """MaskFeat's options; the defaults are the paper's ViT-B/16 on ImageNet."""

    crop: float = 0.5
    bins: Count = 9
    """Orientations of the histograms."""
    cell: Natural = 0
    """Side of a histogram's cell in pixels; 0 is half a patch."""
    window: bool = True
    """Weigh the pixels of a patch by a Gaussian."""
    lr: float = 2e-4
    warmup_epochs: float = 30.0


PRESETS = {
    "imagenet": {"epochs": 300, "batch_size": 2048, "clip": 0.02},
    "imagenet-1600": {"epochs": 1600, "batch_size": 2048, "clip": 0.02},
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "augment": "grey", "crop": 0.5, "lr": 2e-3, "lr_scaling": "none",
        "warmup_epochs": 1.0, "steps": 1000, "batch_size": 64,
    },
}  # fmt: skip


class MaskFeat(MaskTokens):
    """MaskFeat on images of any number of channels."""

    slug = "maskfeat"
    config_class = Config
    config: Config

    @property
    def cell(self) -> int:
        """Side of a cell in pixels.

        Raises:
            UserError: it doesn't divide a patch.
        """
        patch = self.vit.patch[0]
        found = self.config.cell or max(1, patch // 2)
        if patch % found:
            raise UserError(f"cell={found} doesn't divide a patch of {patch} pixels")
        return found

    def answer_width(self) -> int:
        """The histograms of a patch's cells in all channels."""
        return self.channels * self.config.bins * (self.vit.patch[0] // self.cell) ** 2

    def targets(self, x: Tensor) -> Tensor:
        """HOG (N, L, D) of the patches of views in [0, 1]."""
        unit = x.float() * self.pixel_std[:, None, None] + self.pixel_mean[:, None, None]
        patch = self.vit.patch[0]
        window = patch if self.config.window else 0
        return objectives.hog_targets(unit, patch, bins=self.config.bins, cell=self.cell, window=window)

    def objective(self, x: Tensor, answers: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """The mean squared error of the hidden patches' histograms."""
        return {"loss": objectives.maskfeat(answers, self.targets(x), mask)}

    @torch.no_grad()
    def pictures(self, x: Tensor) -> dict[str, Tensor]:
        """What the report shows of images: the visible patches, the strongest gradients said and true, the original."""
        mask = self.hide(x)
        said, true = (self._strength(h) for h in (self.answers(x, mask), self.targets(x)))
        said = torch.where(mask[:, :, None], said, true)
        return {"visible": self.visible(x, mask), "restored": self.whole(said), "histogram": self.whole(true),
                "original": x}  # fmt: skip

    def _strength(self, features: Tensor) -> Tensor:
        """Patches (N, L, C p p) whose cells are as bright as their largest bin."""
        side = self.vit.patch[0] // self.cell
        cells = features.float().unflatten(2, (self.channels, self.config.bins, side, side)).amax(3)
        large = cells.repeat_interleave(self.cell, 3).repeat_interleave(self.cell, 4)
        return (4 * large - 2).flatten(2)
