"""Autoencoders and super-resolution trained with structural similarity (Snell et al., ICIP 2017, arXiv 1511.06409).

    L = Delta(x, x^)                                         model = fc, conv, srcnn
    L = E_{z ~ q(z|x)} lambda Delta(x, x^(z)) + KL( q(z|x) || N(0, I) )              model = elvae

Delta is 1 - MS-SSIM, or one of the distances that it is compared with; networks and steps are the same for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import objectives, views
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, Positive, Range, Share, Widths
from selftaught.engine.distributed import gather
from selftaught.errors import UserError
from selftaught.methods._restoration import Enlarger, SuperResolutionConfig, SuperResolutionMethod
from selftaught.networks.autoencoders import BlockReconstructor, ConvAutoencoder, FCAutoencoder, Reconstruction
from selftaught.networks.luma import OnLuma, luma
from selftaught.networks.srcnn import SRCNN
from selftaught.views import Pipeline, Recipe
from selftaught.views import bicubic as resample

__all__ = ["PerceptualSSIM"]


@dataclass
class Config(SuperResolutionConfig):
    """Options of autoencoders and super-resolution networks with a perceptual objective."""

    lr: float = 1e-3
    model: Literal["fc", "conv", "elvae", "srcnn"] = "conv"
    """Autoencoder of dense layers, of convolutions, variational with convolutions, or SRCNN for super-resolution."""
    loss: Literal["msssim", "ssim", "l1", "l2", "mix"] = "msssim"
    """Distance to minimise; mix is alpha (1 - MS-SSIM) + (1 - alpha) L1, which also holds the colours."""
    alpha: Share = 0.84
    """Share of MS-SSIM in mix."""
    win_size: Annotated[int, Range(3)] = 11
    """Side of the similarity's window in pixels."""
    sigma: Positive = 1.5
    """Its standard deviation in pixels."""
    k1: Positive = 0.01
    """Constant of the luminance term, C1 = k1^2 for images in [0, 1]."""
    k2: Positive = 0.03
    """Constant of the contrast term, C2 = k2^2."""
    scales: Natural = 0
    """Scales of MS-SSIM; 0: as many of the five as the patch has room for."""
    weights: Annotated[str, Form(r"auto|\d*\.?\d+(,\d*\.?\d+)*", "auto, or numbers such as 0.3,0.7")] = "auto"
    """Exponents of the scales, the finest first; auto: the standard ones, brought to the sum 1 where they are fewer."""
    colour: Literal["per_channel", "luma"] = "per_channel"
    """Compare each channel, or the luma of RGB."""
    downsample: Literal["avgpool", "gauss"] = "avgpool"
    """How the next scale is made."""
    clamp: Literal["eps", "relu"] = "eps"
    """What a negative similarity becomes before its power: 1e-8, or a power of 0."""
    reduction: Literal["mean", "pixel"] = "mean"
    """Means over each scale before the product, or the product at every pixel."""
    hidden: Widths = "512"
    """Widths of the dense autoencoder between picture and code."""
    widths: Widths = "64-128-256"
    """Channels of the convolutions, each of which halves the picture."""
    kernel: Annotated[int, Range(2)] = 5
    """Side of their kernels."""
    code: Count = 512
    """Numbers in the code of a patch."""
    lambda_: NonNegative = 1000.0
    """Weight of the distance beside the KL term (elvae); every distance needs one of its own."""
    kernels: Annotated[str, Form(r"\d+-\d+-\d+", "three odd sides such as 9-1-5")] = "9-1-5"
    """Sides of SRCNN's kernels."""
    features: Widths = "64-32"
    """Channels of SRCNN's two inner layers."""
    enlarge: Literal["luma", "all"] = "luma"
    """SRCNN enlarges the luma of RGB and leaves the colours to bicubic interpolation, or all channels together."""
    flip: bool = False
    """Flip patches left to right at random (autoencoders)."""
    deliver: Literal["image", "code"] = "image"
    """What the run gives: reconstructed pictures, or the code as an embedding (autoencoders)."""


PRESETS = {
    "tiny-images-fc": {"model": "fc", "patch": 32, "code": 256, "epochs": 50, "batch_size": 128},
    "stl10-conv": {"model": "conv", "patch": 96, "code": 512, "epochs": 50, "batch_size": 128},
    "faces-elvae": {"model": "elvae", "patch": 64, "code": 128, "epochs": 50, "batch_size": 128},
    "srcnn": {"model": "srcnn", "patch": 96, "lr": 1e-4, "epochs": 50, "batch_size": 16},
    "srcnn-955": {"model": "srcnn", "patch": 96, "kernels": "9-5-5", "lr": 1e-4, "epochs": 50, "batch_size": 16},
    "laptop": {"patch": 32, "widths": "16-32", "kernel": 4, "code": 64, "steps": 1500, "batch_size": 64},
}


class PerceptualSSIM(SuperResolutionMethod):
    """MS-SSIM as the objective of autoencoders, variational autoencoders and SRCNN; any number of channels."""

    slug = "perceptual-ssim"
    config_class = Config
    config: Config
    default_data = "photos"

    def build(self) -> None:
        """The autoencoder, or SRCNN."""
        c = self.config
        variational = c.model == "elvae"
        if c.deliver == "code":
            if c.model == "srcnn":
                raise UserError("--deliver code: srcnn has no code; take --model conv, fc or elvae")
            self.output = "embedding"  # type: ignore[misc]
        if c.colour == "luma" and self.channels not in (1, 3):
            raise UserError(f"--colour luma: images of {self.channels} channels have none; use per_channel")
        if c.model == "srcnn":
            kernels: Any = tuple(map(int, c.kernels.split("-")))
            features: Any = tuple(map(int, c.features.split("-")))
            if len(features) != 2:
                raise UserError(f"--features {c.features}: SRCNN has two inner layers, such as 64-32")
            seen = 1 if self.on_luma else self.channels
            self.net: nn.Module = SRCNN(seen, scale=c.scale, kernels=kernels, features=features)
        else:
            if c.model == "fc":
                hidden = [int(width) for width in c.hidden.split("-")]
                self.net = FCAutoencoder(self.channels, c.patch, hidden=hidden, code=c.code)
            else:
                widths = [int(width) for width in c.widths.split("-")]
                sizes: dict[str, Any] = {"widths": widths, "kernel": c.kernel, "code": c.code}
                self.net = ConvAutoencoder(self.channels, c.patch, **sizes, variational=variational)
        if c.loss in ("msssim", "ssim", "mix"):  # a window that doesn't fit is said now, not at the first batch
            nothing = torch.zeros(1, self.channels, c.patch, c.patch)
            self.distance(nothing, nothing)

    @property
    def on_luma(self) -> bool:
        """Whether SRCNN sees the luma alone."""
        return self.config.enlarge == "luma" and self.channels == 3

    # ---- what is learnt from -----------------------------------------------------------------------------------
    def recipe(self) -> Recipe | None:
        """Pairs of both sizes for super-resolution; an autoencoder learns from single patches."""
        return super().recipe() if self.config.model == "srcnn" else None

    def views(self) -> list[Pipeline]:
        """A random patch."""
        c = self.config
        return [Pipeline((views.RandomCrop(c.patch), *((views.HorizontalFlip(),) if c.flip else ())))]

    def evaluation_view(self) -> Pipeline | None:
        """The middle of the image for codes; images are reconstructed whole."""
        return views.plain(self.config.patch)[0] if self.config.deliver == "code" else None

    # ---- losses ------------------------------------------------------------------------------------------------
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        """Delta, in the chosen form."""
        c = self.config
        weights = None if c.weights == "auto" else tuple(map(float, c.weights.split(",")))
        if weights is not None and c.scales not in (0, len(weights)):
            raise UserError(f"--weights {c.weights}: give one for each of the --scales {c.scales}")
        scales: Any = len(weights) if weights is not None else c.scales or "auto"
        colour = "per_channel" if output.shape[1] == 1 else c.colour
        return objectives.perceptual_ssim(
            output, target, loss=c.loss, alpha=c.alpha, win_size=c.win_size, sigma=c.sigma, k1=c.k1, k2=c.k2,
            scales=scales, weights=weights, colour=colour, downsample=c.downsample, clamp=c.clamp,
            reduction=c.reduction,
        )  # fmt: skip

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The distance, and the KL term of a variational code."""
        if self.config.model == "srcnn":
            low, high = self.pair(batch)
            seen = (luma(low), luma(high)) if self.on_luma else (low, high)
            return {"loss": self.distance(self.net(seen[0]), seen[1])}
        x = batch["views"][0]
        variational = self.config.model == "elvae"
        noise = torch.randn(len(x), self.config.code, device=x.device) if variational else None
        made: Reconstruction = self.net(x, noise)
        distance = self.distance(made.image, x)
        if made.log_variance is None:
            return {"loss": distance}
        return objectives.el_vae_terms(distance, made.mean, made.log_variance, lambda_=self.config.lambda_)

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """A step; before the first one the decoder is set to the mean picture."""
        if self.config.model != "srcnn" and self.steps == 0 and not bool(self.net.centred):
            self.net.centre(gather(batch["views"][0]))  # type: ignore[operator]
        return super().step(batch)

    # ---- what one keeps ----------------------------------------------------------------------------------------
    def network(self) -> nn.Module:
        """SRCNN, on the luma or on all channels."""
        return OnLuma(self.net) if self.on_luma else self.net

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Images in [0, 1] of any size, reconstructed or enlarged; or codes (N, D) of patches."""
        return self.deliverable()(self.inputs(batch))

    def deliverable(self) -> nn.Module:
        """Images in [0, 1] to images, or patches to codes."""
        if self.config.model == "srcnn":
            return Enlarger(self.network())
        return Coder(self.net) if self.config.deliver == "code" else BlockReconstructor(self.net)  # type: ignore[arg-type]

    def deliverable_spec(self) -> dict[str, Any]:
        """The network's sizes."""
        c = self.config
        if c.model == "srcnn":
            own: dict[str, Any] = {"kernels": c.kernels, "features": c.features, "scale": c.scale, "luma": self.on_luma}
            return {"name": "srcnn", "channels": self.channels} | own
        own = {"hidden": c.hidden} if c.model == "fc" else {"widths": c.widths, "kernel": c.kernel}
        name = {"fc": "fc-autoencoder", "conv": "conv-autoencoder", "elvae": "el-vae"}[c.model]
        return {"name": name, "channels": self.channels, "side": c.patch, "code": c.code} | own

    # ---- judging -----------------------------------------------------------------------------------------------
    def judged(self) -> dict[str, Any]:
        """Super-resolution on the luma without a border, reconstructions as they are."""
        return super().judged() if self.config.model == "srcnn" else {}

    def degraded(self, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A small copy and what is to be made of it; an autoencoder gets and gives the same picture."""
        return super().degraded(clean) if self.config.model == "srcnn" else (clean, clean)

    def simplest(self, degraded: np.ndarray) -> np.ndarray:
        """Bicubic interpolation: of the small copy, or of as many numbers per patch as the code has."""
        c = self.config
        if c.model == "srcnn":
            return super().simplest(degraded)
        share = math.sqrt(c.code / self.channels) / c.patch
        height, width = degraded.shape[:2]
        small = resample(degraded, size=(max(1, round(share * height)), max(1, round(share * width))))
        return np.clip(resample(small, size=(height, width)), 0, 1)


class Coder(nn.Module):
    """Patches (N, C, S, S) in [0, 1] to their codes (N, D), the means of a variational one."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, x: Tensor) -> Tensor:
        """The codes."""
        return self.autoencoder.encode(x)[0]
