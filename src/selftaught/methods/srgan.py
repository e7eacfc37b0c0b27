"""SRGAN: super-resolution that looks real (Ledig et al., CVPR 2017, arXiv 1609.04802).

Stage "pretrain" is SRResNet: G learns the squared error. In stage "gan" it learns, against a discriminator D that is
told photographs x from G's images and takes turns with it, to be alike in the features phi of a frozen VGG:

    L_G = mean over places of sum over channels (s phi(x) - s phi(g))^2  +  1e-3 mean -log D(g),      g = G(low)
    L_D = mean -log D(x) + mean -log(1 - D(g))                                                        g detached
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from selftaught.catalog.rules import Count, Natural, NonNegative, Positive
from selftaught.engine.method import Optim, Schedule, Stage
from selftaught.methods.srresnet import Config as SRResNetConfig
from selftaught.methods.srresnet import Content, SRResNet
from selftaught.networks.srgan import SRDiscriminator
from selftaught.objectives.srgan import srgan_discriminator, srgan_perceptual, srgan_pixel

__all__ = ["SRGAN"]


@dataclass
class Config(SRResNetConfig):
    """SRGAN's options; the defaults are the paper's SRGAN-VGG54."""

    content: Content = "vgg54"
    """Content loss of the second stage; the first has the squared error."""
    schedule: Schedule = "step"
    decay_every: float = 0.5
    decay_factor: float = 0.1
    pretrain_steps: Natural = 1_000_000
    """Steps of the first stage; 0 leaves it out, for a generator that comes with --init."""
    pretrain_lr: Positive = 1e-4
    """Learning rate of the first stage."""
    adv_weight: NonNegative = 1e-3
    """Weight of the adversarial term; 0: no discriminator."""
    adv_reduction: Literal["mean", "sum"] = "mean"
    """Of the adversarial term over the batch; the paper writes a sum."""
    discriminator_width: Count = 64
    """Channels of the discriminator's first layer; the widest has eight times as many."""


PRESETS = {
    "srgan-vgg54": {"steps": 200000, "batch_size": 16},
    "srgan-vgg22": {"steps": 200000, "batch_size": 16, "content": "vgg22"},
    "srgan-mse": {"steps": 200000, "batch_size": 16, "content": "mse"},
    "laptop": {
        "blocks": 4, "features": 16, "norm": "none", "upsample_skip": True, "patch": 48, "content": "vgg22",
        "discriminator_width": 16, "pretrain_lr": 1e-3, "pretrain_steps": 700, "steps": 200,
        "batch_size": 8,
    },
}  # fmt: skip


class SRGAN(SRResNet):
    """SRGAN with the content losses of the paper; any number of channels (VGG sees 1 or 3)."""

    slug = "srgan"
    config_class = Config
    config: Config
    stages = ("pretrain", "gan")

    def build(self) -> None:
        """The generator G, and the discriminator D for patches of the training's size."""
        super().build()
        c = self.config
        if c.pretrain_steps == 0:
            self.stages = ("gan",)  # type: ignore[assignment]
            self.stage = "gan"
        if c.adv_weight:
            self.discriminator = SRDiscriminator(self.channels, width=c.discriminator_width, crop=c.patch)

    def stage_plan(self, stage: str) -> Stage:
        """The first stage has a length of its own."""
        return Stage(settings={"steps": self.config.pretrain_steps}) if stage == "pretrain" else Stage()

    def optimisers(self) -> dict[str, Optim]:
        """G alone, at a constant rate; then G and D, whose rates fall together."""
        c = self.config
        if self.stage == "pretrain":
            return {"generator": Optim(self.generator, lr=c.pretrain_lr, betas=(c.momentum, 0.999))}
        (main,) = super().optimisers().values()
        names = ("generator", "discriminator") if c.adv_weight else ("generator",)
        return {name: dataclasses.replace(main, parameters=getattr(self, name)) for name in names}

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The first stage's squared error."""
        low, high = self.pair(batch)
        squared = srgan_pixel(self.generator(low), 2 * high - 1)
        return {"loss": squared}

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """D learns from the photographs and what G makes of their copies, then G from the new D."""
        if self.stage == "pretrain":
            return self.minimise(self.loss(batch))
        low, high = self.pair(batch)
        target = 2 * high - 1
        generated = self.generator(low)  # once: its running statistics move once a step
        if not self.config.adv_weight:
            return self.minimise(self.content_terms(generated, target))
        told = self.minimise(self.discriminator_terms(target, generated.detach()), optimiser="discriminator")
        return told | self.minimise(self.generator_terms(target, generated), optimiser="generator")

    def discriminator_terms(self, target: Tensor, generated: Tensor) -> dict[str, Tensor]:
        """D's loss, and how often it is right; BatchNorm sees photographs and generated images apart."""
        real, fake = self.discriminator(target), self.discriminator(generated)
        loss = srgan_discriminator(real, fake)
        right = torch.cat([real > 0, fake < 0]).float().mean()
        return {"loss": loss, "discriminator": loss, "told apart": right}

    def generator_terms(self, target: Tensor, generated: Tensor) -> dict[str, Tensor]:
        """G's perceptual loss: content and adversarial terms."""
        c = self.config
        terms = self.content_terms(generated, target)
        logits = self.discriminator(generated)
        whole = srgan_perceptual(terms["loss"], logits, adv_weight=c.adv_weight, reduction=c.adv_reduction)
        return terms | {"loss": whole["loss"], "adversarial": whole["adversarial"]}
