"""Mixed Barlow Twins: a mixture of two images embeds as the mixture of their embeddings (2023, arXiv 2312.02151).

    Y^M = alpha Y^A + (1 - alpha) Y^B[pi],     alpha ~ Beta(1, 1),  pi a permutation of the batch
    L   = L_BT(Z^A, Z^B) + lambda_reg s ( ||C^MA - C^MA_gt||_F^2 + ||C^MB - C^MB_gt||_F^2 )

C^MX is the cross-correlation of the mixed batch's embeddings with view X's; its target C^MX_gt is that of the same
mixture made of embeddings. Barlow Twins overfits where data are few, training is long or the embedding is wide: the
third batch, new in every step, keeps it from that at half the cost again.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks, objectives, views
from selftaught.catalog.rules import NonNegative, Positive, Share
from selftaught.engine.distributed import gather, gather_labels, rank, world_size
from selftaught.engine.method import Optimizer
from selftaught.engine.optim import parameter_groups
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.views import Pipeline

__all__ = ["MixedBarlowTwins"]


@dataclass
class Config(JointEmbeddingConfig):
    """Options of Mixed Barlow Twins; the defaults are the official recipe for small images (CIFAR-10)."""

    encoder: str = "resnet18"
    image_size: int = 32
    optimizer: Optimizer = "adam"
    lr: float = 0.01
    lr_biases: NonNegative = 0.0
    """Base learning rate of biases and norms; 0 takes lr."""
    weight_decay: float = 1e-6
    warmup_epochs: float = 10.0
    final_lr: float = 0.001
    projector: str = "512-1024"
    script: Literal["small-image", "imagenet"] = "small-image"
    """Which of the two official scripts gives the views and the projector's last layer (with a bias, or without)."""
    grey_probability: Share = 0.2
    """How often the small-image recipe takes the colour out of a view."""
    lambda_bt: NonNegative = 0.0078125
    """Weight of the redundancy-reduction term."""
    lambda_reg: NonNegative = 4.0
    """Weight of the mixed-sample term; 0 is plain Barlow Twins, without the third batch."""
    reg_warmup_epochs: NonNegative = 0.0
    """Epochs over which lambda_reg rises from 0, at most a fifth of the run."""
    reg_half: bool = False
    """Halve the mixed-sample term, as the ImageNet script does."""
    mix_alpha: Positive = 1.0
    """Parameter of the Beta distribution of the mixing share; 1 is uniform."""
    per_sample_alpha: bool = False
    """Draw a mixing share for every image; off: one for the batch."""
    mb_target: Literal["paper", "imagenet-script"] = "paper"
    """Target of C^MB: the paper's, or the ImageNet script's, which has Z^B in place of Z^A."""
    detach_target: bool = False
    """Stop the gradient through the targets of the mixture (experiment)."""
    l2_before_standardise: bool = True
    """Scale every projection to length 1 before features are standardised."""
    unbiased: bool = True
    """Standardise with the divisor N - 1; off: N."""
    mixture_in_statistics: bool = False
    """Count the mixtures in BatchNorm's running statistics, as the scripts do; evaluation then sees skewed ones."""
    local_statistics: bool = False
    """With several processes: each standardises its own part of the batch, as the ImageNet script does."""


PRESETS = {
    "cifar10": {"epochs": 2000, "batch_size": 256},
    "cifar10-resnet50": {"encoder": "resnet50", "epochs": 1000, "batch_size": 256},
    "cifar100": {"projector": "512-2048", "epochs": 2000, "batch_size": 256},
    "tiny-imagenet": {
        "image_size": 64, "stem": "small", "crop": 0.2, "grey_probability": 0.1, "lambda_bt": 0.0009765,
        "epochs": 2000, "batch_size": 256,
    },
    "stl10": {
        "image_size": 64, "stem": "small", "crop": 0.2, "grey_probability": 0.1, "lambda_reg": 2.0,
        "epochs": 2000, "batch_size": 256,
    },
    "imagenet": {
        "script": "imagenet", "encoder": "resnet50", "image_size": 224, "projector": "8192-8192-8192",
        "optimizer": "lars", "lr": 0.2, "lr_biases": 0.0048, "lambda_bt": 0.0051, "lambda_reg": 1.0, "reg_half": True,
        "reg_warmup_epochs": 10.0, "l2_before_standardise": False, "local_statistics": True,
        "epochs": 300, "batch_size": 1024,
    },
    "imagenet-1000": {
        "script": "imagenet", "encoder": "resnet50", "image_size": 224, "projector": "8192-8192-8192",
        "optimizer": "lars", "lr": 0.2, "lr_biases": 0.0048, "lambda_bt": 0.0051, "lambda_reg": 2.0, "reg_half": True,
        "reg_warmup_epochs": 10.0, "l2_before_standardise": False, "local_statistics": True,
        "epochs": 1000, "batch_size": 1024,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-256", "augment": "small", "crop": 0.2,
        "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0, "final_lr": 0.0,
        "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class MixedBarlowTwins(JointEmbedding):
    """Barlow Twins with a third batch of mixed samples; both official recipes."""

    slug = "mixed-barlow-twins"
    config_class = Config
    config: Config

    def head(self, widths: list[int]) -> nn.Module:
        """Linear without bias, BN, ReLU, ..., Linear; only the small-image recipe's last layer has a bias."""
        return networks.mlp(widths, norm="bn", hidden_bias=False, out_bias=self.config.script == "small-image")

    def paper_views(self) -> list[Pipeline]:
        """Two equal views without blur, or on ImageNet those of Barlow Twins."""
        c, scale = self.config, (self.config.crop, 1.0)
        if c.script == "imagenet":
            return list(views.barlow_twins(c.image_size, scale=scale))
        return list(views.small(c.image_size, scale=scale, grey=c.grey_probability))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Embed both views and their mixture, gather over processes, compare."""
        x1, x2 = self.seen(batch)
        z1, z2 = self.embed_views([x1, x2])
        if not self.config.lambda_reg:
            return self.objective(gather(z1), gather(z2))
        alpha, pi = self.draw_mixture(len(x1))
        share = alpha.view(-1, *[1] * (x1.ndim - 1))
        with nullcontext() if self.config.mixture_in_statistics else networks.kept_statistics(self):
            zm = self.project(share * x1 + (1 - share) * x2[pi])
        everyones_pi = gather_labels(pi + rank() * len(pi))
        return self.objective(gather(z1), gather(z2), gather(zm), gather_labels(alpha), everyones_pi)

    def draw_mixture(self, count: int) -> tuple[Tensor, Tensor]:
        """The shares alpha (N,), all equal unless ``per_sample_alpha``, and the permutation pi (N,)."""
        c = self.config
        draws = count if c.per_sample_alpha else 1
        if c.mix_alpha == 1:
            alpha = torch.rand(draws, device=self.device)
        else:
            parameter = torch.tensor(c.mix_alpha, device=self.device)
            alpha = torch.distributions.Beta(parameter, parameter).sample((draws,))
        return alpha.expand(count), torch.rand(count, device=self.device).argsort()

    def objective(self, z1: Tensor, z2: Tensor, *mixture: Tensor) -> dict[str, Tensor]:
        """Barlow Twins' two terms and, given (zm, alpha, pi), the regularisation."""
        c = self.config
        return objectives.mixed_barlow_twins_terms(
            z1,
            z2,
            *mixture,
            lambda_bt=c.lambda_bt,
            lambda_reg=c.lambda_reg * self.regularisation_ramp(),
            reg_half=c.reg_half,
            mb_target=c.mb_target,
            detach_target=c.detach_target,
            l2_before_standardise=c.l2_before_standardise,
            unbiased=c.unbiased,
            groups=world_size() if c.local_statistics else 1,
        )

    def regularisation_ramp(self) -> float:
        """The factor in [0, 1] on lambda_reg: linear over the warm-up, then 1."""
        if not self.config.reg_warmup_epochs:
            return 1.0
        warmup = self.config.reg_warmup_epochs * self.epoch_batches / self.accumulate / self.total_steps
        return min(1.0, self.progress / min(warmup, 0.2))

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Biases and norms may learn at a rate of their own."""
        c = self.config
        biases = lr * c.lr_biases / c.lr if c.lr_biases else lr
        return parameter_groups(self.trained_modules(), c.weight_decay, lr=lr, lr_excluded=biases)
