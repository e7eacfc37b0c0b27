"""Core-tuning: fine-tune a self-supervised encoder with hard pairs mixed in feature space (Zhang et al., NeurIPS 2021).

    h = f(x)    pool = h, (1 - a) h + a h_n, b h_hp + (1 - b) h_hn       the labels mixed alike, a >= 0.8
    L = 1/3B sum_m - y_m . log softmax(W h_m)  +  eta L_con^f( g(h_m), y_m )

n is a random sample of another class, hp the least similar of the same class, hn the most similar of another. At test
time f and W stay. The encoder comes from a run (``--init RUN``) or from timm (``--pretrained``). Baselines in the same
code: ``ce``, ``ce+supcon``, ``mixup`` (of images), ``linear`` (frozen encoder). arXiv 2102.06605.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, PositiveShare, Share
from selftaught.engine.distributed import gather, gather_labels
from selftaught.engine.method import LearningRateScaling, Optimizer
from selftaught.errors import UserError
from selftaught.evaluation.robustness import pgd
from selftaught.methods._encoder import ClassifierConfig, ClassifierMethod, accuracy
from selftaught.objectives.core_tuning import draw_shares, soft_cross_entropy
from selftaught.views import HorizontalFlip, Op, Pipeline, RandomCrop, RandomResizedCrop, Resize

__all__ = ["CoreTuning"]


@dataclass
class Config(ClassifierConfig):
    """Core-tuning's options; the defaults are the paper's for images of 224 pixels."""

    optimizer: Optimizer = "sgd"
    lr: float = 0.01
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 1e-4
    nesterov: bool = True
    """Nesterov's form of SGD's momentum."""
    mode: Literal["core-tuning", "ce", "ce+supcon", "mixup", "linear"] = "core-tuning"
    """The method; cross-entropy; with SupCon on the projections; with mixed images; classifier on a frozen encoder."""
    eta: NonNegative = 0.1
    """Weight of the contrastive term (the paper tries 0.1, 1, 10); its size depends on normalisation."""
    alpha: Positive = 1.0
    """Shares are drawn from Beta(alpha, alpha), of mixup too."""
    neg_threshold: Share = 0.8
    """Smallest share of the other sample in a hard negative."""
    tau: Positive = 0.07
    """Temperature of the contrastive term."""
    head_dim: Count = 256
    """Width of the contrastive head's output."""
    mining: Literal["paper", "official", "none"] = "paper"
    """Hard pairs by the paper's rule, as the released code finds them, or no mixing."""
    focal: bool = True
    """Weigh positives that are near already by less."""
    mixed_ce: bool = True
    """The classifier learns from the mixtures too, not from the originals alone."""
    detach_originals: bool = False
    """Unmixed features send no gradient to the encoder, as in the released code."""
    normalisation: Literal["code", "per-positive"] = "code"
    """Divide each row of the contrast by the size of the pool, or by its number of positives."""
    crop: float = 0.08
    crops: Literal["area", "window"] = "area"
    """Random resized crops, or a window of 16/17 of the resized image (CIFAR)."""
    rotation: NonNegative = 0.0
    """Largest angle of a random rotation in degrees."""
    adversarial: Natural = 0
    """Steps of a PGD attack on every training image (images only); 0 trains on clean ones."""
    epsilon: PositiveShare = 0.0314
    """Largest change of a pixel by the attack, of 1 (8/255)."""
    attack_step: NonNegative = 0.0
    """Size of one step of the attack; 0: 2.5 epsilon / steps."""


PRESETS = {
    "imagenet-20": {"epochs": 100, "batch_size": 256},
    "cifar10": {
        "image_size": 256, "crops": "window", "rotation": 15.0, "eta": 0.1, "epochs": 100, "batch_size": 64,
        "accumulate": 4,
    },
    "official": {
        "image_size": 256, "crops": "window", "rotation": 15.0, "eta": 0.1, "mining": "official",
        "detach_originals": True, "epochs": 100, "batch_size": 64, "accumulate": 4,
    },
    "adversarial": {
        "image_size": 256, "crops": "window", "rotation": 15.0, "adversarial": 10, "epochs": 100, "batch_size": 64,
        "accumulate": 4,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "augment": "small", "crop": 0.2, "optimizer": "adamw",
        "lr": 2e-3, "lr_scaling": "linear", "weight_decay": 0.05, "warmup_epochs": 1.0, "head_dim": 128, "steps": 1000,
        "batch_size": 64,
    },
}  # fmt: skip


class CoreTuning(ClassifierMethod):
    """Core-tuning with its baselines, on images of any number of channels or on labelled sensor series."""

    slug = "core-tuning"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, classifier without bias, and the contrastive head where the mode has a contrast."""
        super().build()
        c, width = self.config, int(self.encoder.dim)  # type: ignore[arg-type]
        self._check()
        self.classifier = nn.Linear(width, self.classes, bias=False)
        if self._contrasts:
            self.head = networks.mlp([width, width, c.head_dim], norm="none")
        if c.mode == "linear":
            self.encoder.requires_grad_(False).eval()

    def _check(self) -> None:
        c = self.config
        if not self.spatial and (c.adversarial or c.rotation):
            raise UserError("adversarial and rotation are for images; leave them out for series")
        if c.mode == "linear" and c.adversarial:
            raise UserError("mode=linear leaves the encoder as it is: leave out adversarial, or take mode=ce")

    @property
    def _contrasts(self) -> bool:
        return self.config.mode in ("core-tuning", "ce+supcon") and self.config.eta > 0

    def train(self, mode: bool = True) -> CoreTuning:
        """A frozen encoder stays in evaluation mode: its BatchNorm statistics do not move."""
        super().train(mode)
        if self.config.mode == "linear":
            self.encoder.eval()
        return self

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The usual groups, with Nesterov's momentum for SGD."""
        groups = super().parameter_groups(lr)
        own = {"nesterov": True} if self.config.optimizer == "sgd" and self.config.nesterov else {}
        return [group | own for group in groups]

    # ---- views -----------------------------------------------------------------------------------------------
    def paper_views(self) -> list[Pipeline]:
        """Crop and flip; the rotation comes on the device."""
        c = self.config
        crop: list[Op] = [RandomResizedCrop(c.image_size, (c.crop, 1.0))]
        if c.crops == "window":
            crop = [Resize(c.image_size + c.image_size // 16), RandomCrop(c.image_size)]
        return [Pipeline((*crop, HorizontalFlip()), name="view")]

    def _rotated(self, x: Tensor) -> Tensor:
        """Every image (N, C, H, W) turned by its own angle about its centre, the corners black."""
        angle = (2 * torch.rand(len(x), device=x.device) - 1) * math.radians(self.config.rotation)
        ratio = x.shape[2] / x.shape[3]
        zero, cosine, sine = torch.zeros_like(angle), angle.cos(), angle.sin()
        rows = [cosine, -sine * ratio, zero], [sine / ratio, cosine, zero]
        turn = torch.stack([torch.stack(row, 1) for row in rows], 1)
        black = (-self.pixel_mean / self.pixel_std)[:, None, None]
        grid = F.affine_grid(turn, list(x.shape), align_corners=False)
        return F.grid_sample(x - black, grid.to(x), align_corners=False) + black

    def _attacked(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) after a PGD attack on the classifier in evaluation mode."""
        c = self.config
        mean, std = self.pixel_mean[:, None, None], self.pixel_std[:, None, None]
        was = self.training
        self.eval()
        found = pgd(
            lambda pixels: self.classifier(self.encoder(self.normalise(pixels))), (x * std + mean).clamp(0, 1), labels,
            epsilon=c.epsilon, steps=c.adversarial, step_size=c.attack_step or None,
        )  # fmt: skip
        self.train(was)
        return self.normalise(found)

    # ---- loss ------------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The mode's loss; mixing and cross-entropy over local rows, the contrast over those of all processes."""
        c, labels = self.config, batch["label"]
        x = self.seen(batch)[0]
        if c.rotation:
            x = self._rotated(x)
        if c.adversarial:
            x = self._attacked(x, labels)
        if c.mode == "mixup":
            return self._mixup(x, labels)
        with torch.set_grad_enabled(torch.is_grad_enabled() and c.mode != "linear"):
            h = self.encoder(x)
        if c.mode == "core-tuning":
            return self._core_tuning(h, labels)
        logits = self.classifier(h)
        terms = {"loss": objectives.supervised(logits, labels), "accuracy": accuracy(logits, labels)}
        if not self._contrasts:
            return terms
        contrast = objectives.supcon(gather(self.head(h)), labels=gather_labels(labels), temperature=c.tau)
        return self._with_contrast(terms, contrast)

    def _core_tuning(self, h: Tensor, labels: Tensor) -> dict[str, Tensor]:
        c = self.config
        pool = objectives.core_tuning_pool(
            h, labels, classes=self.classes, alpha=c.alpha, neg_threshold=c.neg_threshold, mining=c.mining,
            detach_originals=c.detach_originals,
        )  # fmt: skip
        logits = self.classifier(pool.features if c.mixed_ce else h)
        cross_entropy = soft_cross_entropy(logits, pool.targets[: len(logits)])
        terms = {"loss": cross_entropy, "accuracy": accuracy(logits[: len(h)], labels)}
        if not self._contrasts:
            return terms
        contrast = objectives.focal_contrast(
            gather(self.head(pool.features)), gather_labels(pool.targets), tau=c.tau, focal=c.focal,
            normalisation=c.normalisation,
        )  # fmt: skip
        return self._with_contrast(terms, contrast)

    def _with_contrast(self, terms: dict[str, Tensor], contrast: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, so far the whole loss, and eta times the contrast."""
        cross_entropy = terms["loss"]
        named = {"cross_entropy": cross_entropy, "contrast": contrast}
        return terms | {"loss": cross_entropy + self.config.eta * contrast} | named

    def _mixup(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Images and labels mixed with a random permutation's (Zhang et al. 2018, arXiv 1710.09412), one share each."""
        share = draw_shares(len(x), self.config.alpha, like=x).to(x)
        other = torch.randperm(len(x), device=x.device)
        column = share.view(-1, *[1] * (x.dim() - 1))
        hot = F.one_hot(labels, self.classes).to(x)
        logits = self.classifier(self.encoder(column * x + (1 - column) * x[other]))
        loss = soft_cross_entropy(logits, share[:, None] * hot + (1 - share[:, None]) * hot[other])
        return {"loss": loss, "accuracy": accuracy(logits, labels)}
