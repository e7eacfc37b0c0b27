"""C-BSN: a denoiser from noisy photographs alone (Jang et al., ICCV 2023, arXiv 2304.09507).

One network f with a switch: blind (f_M, its first kernels without their centre tap, so no pixel sees itself) or not.

    L_blind = mean | B2S_5( f_M( S2B_5(x) ) ) - x |         pixels 5 apart share no noise: they can't tell it
    L_self  = mean | f(x) - x |
    L_inv   = mean | RS_2( f(x); m ) - sg( f_M( RS_2(x; m) ) ) |             what f sees of a pixel must not change it
    L       = L_blind + s(t) ( L_self + lambda L_inv ),      s(t) ramps from 0 to 1 over the first two fifths

S2B_r splits an image into its r^2 phases, RS_2 keeps a random pixel of every 2x2 cell. At test time one pass of the
unmasked f denoises the whole image. Every patch is normalised per image and channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, NonNegative, Share
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer, Schedule
from selftaught.objectives.c_bsn import patch_statistics
from selftaught.views import Pipeline

__all__ = ["CBSN"]


@dataclass
class Config(MethodConfig):
    """C-BSN's options; the defaults are the official SIDD recipe."""

    optimizer: Optimizer = "adam"
    lr: float = 1e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    schedule: Schedule = "step"
    width: Count = 128
    """Feature channels C of the network."""
    modules: Count = 9
    """Dilated modules N per branch."""
    patch: Count = 120
    """Side of the training patches; a multiple of both strides."""
    stride_blind: Count = 5
    """Phases of the blind loss; 1 is the ordinary blind-spot network, right for white noise."""
    stride_inv: Count = 2
    """Cell of the downsampled invariance loss."""
    lambda_: NonNegative = 2.0
    """Weight of the invariance term."""
    ramp: Share = 0.4
    """Share of the run over which the two unmasked terms are brought in."""
    terms: Literal["all", "blind"] = "all"
    """blind: only the blind loss (the BSN and AP-BSN baselines)."""
    penalty: Literal["l1", "l2"] = "l1"
    """Distance of all three terms."""
    subsampler: Literal["random", "pixel-shuffle"] = "random"
    """random cells, or one regular phase (ablation)."""
    inference: Literal["unmasked", "masked"] = "unmasked"
    """Which of the two networks denoises."""
    stride_test: Count = 1
    """Phases at test time (AP-BSN's downsampling; masked inference)."""


PRESETS = {
    "sidd": {"steps": 500000, "batch_size": 4, "patch": 240},
    "sidd-120": {"steps": 500000, "batch_size": 4},
    "bsn": {
        "stride_blind": 1, "terms": "blind", "inference": "masked", "steps": 500000, "batch_size": 4,
    },
    "ap-bsn": {
        "terms": "blind", "inference": "masked", "stride_test": 2, "steps": 500000, "batch_size": 4,
    },
    "laptop": {
        "width": 32, "modules": 3, "patch": 60, "stride_blind": 3, "lr": 1e-3, "steps": 1500, "batch_size": 8,
    },
}  # fmt: skip

_REFLECT = 32


class CBSN(Method):
    """C-BSN with its blind-spot baselines; any number of channels."""

    slug = "c-bsn"
    config_class = Config
    config: Config
    output = "image"
    pixels = "float32"
    compares = False
    default_data = "photos:whole"

    def build(self) -> None:
        """The conditional blind-spot network."""
        c = self.config
        self.network = networks.BlindSpotNetwork(channels=self.channels, width=c.width, modules=c.modules)

    def views(self) -> list[Pipeline]:
        """A random patch in one of the eight orientations."""
        return list(views.patches(self.config.patch))

    def ramp_weight(self) -> float:
        """s(t)."""
        return objectives.c_bsn_ramp(self.steps, max(1, round(self.config.ramp * self.total_steps)))

    def blind(self, x: Tensor, stride: int) -> Tensor:
        """B2S( f_M( S2B(x) ) ): every phase denoised by the blind network."""
        return objectives.b2s(self.network(objectives.s2b(x, stride), blind=True), stride)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The blind, self and invariance terms on normalised patches."""
        c = self.config
        x, _, _ = objectives.normalise_patch(batch["views"][0])
        blind = self.blind(x, c.stride_blind)
        if c.terms == "blind":
            loss = objectives.blind_spot(blind, x, loss=c.penalty)
            return {"loss": loss, "blind": loss}
        m = objectives.draw_subsample(x, c.stride_inv, subsampler=c.subsampler)
        with torch.no_grad():
            blind_sub = self.network(objectives.random_subsample(x, m, c.stride_inv), blind=True)
        unmasked = self.network(x, blind=False)
        ramp = self.ramp_weight()
        return objectives.c_bsn_terms(blind, unmasked, blind_sub, x, m, ramp=ramp, lambda_=c.lambda_, loss=c.penalty)

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Denoised images (N,C,H,W) in [0, 1] from noisy ones of the same range."""
        return self.deliverable()(batch["views"][0])

    def deliverable(self) -> nn.Module:
        """The denoiser: noisy image in [0, 1] in, denoised image out."""
        return Denoiser(self.network, self.config)

    def deliverable_spec(self) -> dict[str, Any]:
        """The network's sizes."""
        c = self.config
        return {"name": "blind-spot", "channels": self.channels, "width": c.width, "modules": c.modules}


class Denoiser(nn.Module):
    """Normalise the whole image, reflect-pad, one pass, crop, put the statistics back, clip.

    Images larger than ``tile`` are cut into tiles that overlap by the network's receptive field, so that no seam shows.
    """

    def __init__(self, network: networks.BlindSpotNetwork, config: Config) -> None:
        super().__init__()
        self.network, self.blind, self.stride = network, config.inference == "masked", config.stride_test

    def forward(self, image: Tensor, tile: int = 0) -> Tensor:
        """Denoise (N,C,H,W) float images in [0, 1]; ``tile`` is the largest side of one pass, 0 for no limit."""
        height, width = image.shape[-2:]
        mean, std = patch_statistics(image)
        down, right = (-height) % self.stride, (-width) % self.stride
        edge = min(_REFLECT, height - 1, width - 1)
        edge -= edge % self.stride
        around = (edge, edge + right, edge, edge + down)
        phases = self._apart(pad(image, around, mode="reflect"))
        each = [one.repeat(self.stride**2, 1, 1, 1) for one in (mean, std)]

        def restored(part: Tensor) -> Tensor:
            x = self.network((part - each[0]) / each[1], blind=self.blind)
            return objectives.denormalise_patch(x, *each).clamp(0, 1)

        if tile and max(phases.shape[-2:]) > (side := tile // self.stride):
            radius = self.network.receptive_radius()
            phases = networks.tiled(restored, phases, tile=max(side, 4 * radius), overlap=radius, grid=1)
        else:
            phases = restored(phases)
        y = phases if self.stride == 1 else objectives.b2s(phases, self.stride)
        return y[..., edge : edge + height, edge : edge + width]

    def _apart(self, image: Tensor) -> Tensor:
        """The phases as a batch; one alone is the image, without a copy."""
        return image if self.stride == 1 else objectives.s2b(image, self.stride)
