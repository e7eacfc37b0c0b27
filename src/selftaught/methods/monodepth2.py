"""Monodepth2: depth from one picture, learnt from video alone (Godard et al., ICCV 2019, arXiv 1806.01260).

A depth network says how far each pixel of a frame is, a pose network how the camera moved to the frames before and
after; together they say where each pixel is seen there. What is wrong with the picture made that way teaches both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from selftaught.catalog.rules import Share
from selftaught.methods._depth import DepthConfig, DepthMethod
from selftaught.objectives.monodepth2 import monodepth2_terms
from selftaught.views import ColorJitter, Recipe, View

__all__ = ["Monodepth2"]


@dataclass
class Config(DepthConfig):
    """Monodepth2's options; the defaults are the paper's for KITTI."""

    automask: bool = True
    """Whether pixels that don't move against the camera are left out."""
    average: bool = False
    """Mean over the frames in place of the smallest error (ablation)."""
    jitter: Share = 0.5
    """Share of snippets whose colours the networks see changed (never the loss)."""


PRESETS = {
    "kitti": {"epochs": 20, "batch_size": 12, "pretrained": True, "crop": "garg"},
    "kitti-1024": {"epochs": 20, "batch_size": 4, "pretrained": True, "height": 320, "width": 1024, "crop": "garg"},
    "kitti-scratch": {"epochs": 20, "batch_size": 12, "crop": "garg"},
    "cityscapes": {
        "epochs": 20, "batch_size": 12, "pretrained": True, "height": 192, "width": 512, "crop": "cityscapes",
    },
    "laptop": {
        "encoder": "small", "pose_encoder": "small", "height": 48, "width": 64, "scales": 1, "lr": 2e-3, "steps": 500,
        "batch_size": 8, "precision": "32",
    },
}  # fmt: skip


class Monodepth2(DepthMethod):
    """Monodepth2 on videos of one or three channels."""

    slug = "monodepth2"
    config_class = Config
    config: Config

    def recipe(self) -> Recipe:
        """The three frames, and the same in other colours for the networks."""
        colour = ColorJitter(0.2, 0.2, 0.2, 0.1, p=self.config.jitter)
        return Recipe((View("clip", "clip", (self.resize(),)), View("seen", "clip", (colour,))))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Photometric error of the warped neighbours, and smoothness."""
        c, frames = self.config, self.frames(batch)
        transforms, _, _, coarsest = self.motion(frames.seen)
        camera = self.camera(frames.shares, coarsest, frames.size)
        disparities = self.depth_net(frames.seen[1])
        warped = self.all_warped(disparities, frames.sources, camera, transforms)
        return monodepth2_terms(
            disparities, warped, frames.target, frames.sources, smoothness=c.smoothness, automask=c.automask,
            average=c.average, alpha=c.ssim, noise=self.noise(frames),
        )  # fmt: skip
