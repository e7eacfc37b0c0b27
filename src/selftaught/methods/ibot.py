"""iBOT: DINO, and at once masked patches told by an online teacher (Zhou et al., ICLR 2022, arXiv 2111.07832).

    L = lambda1 L_cls + lambda2 L_patch
    L_patch = mean over 2 large crops, mean_b [ sum_i m_i H(P_i, softmax(s_i / tau_s)) / max(1, sum_i m_i) ]

L_cls is DINO's loss of the class tokens, the student seeing masked large crops. Teacher and student share one head for
class and patch tokens: the teacher's patch tokens are an online tokeniser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import NonNegative, Positive, Range, Share
from selftaught.engine.distributed import gather_labels
from selftaught.errors import UserError
from selftaught.methods.dino import DINO
from selftaught.methods.dino import Config as DINOConfig
from selftaught.networks.masks import attention_masks, drawn_ratio_masks

__all__ = ["IBOT"]


@dataclass
class Config(DINOConfig):
    """iBOT's options; the defaults are the paper's ViT-S/16 on ImageNet."""

    crop: float = 0.32
    local_crops: int = 10
    prototypes: int = 8192
    teacher_temperature: float = 0.07
    teacher_warmup_epochs: float = 30.0
    patch_temperature: Positive = 0.07
    """Temperature tau_2 of the teacher's patches, after the same warm-up from patch_temperature_start."""
    patch_temperature_start: Positive = 0.04
    """Temperature tau_2 at the start."""
    lambda1: NonNegative = 1.0
    """Weight of the class tokens' loss."""
    lambda2: NonNegative = 1.0
    """Weight of the hidden patches' loss."""
    mask: Literal["block", "random", "attention"] = "block"
    """What is hidden: blocks, single patches, or what the teacher attends to most (of every image)."""
    mask_ratio: Annotated[float, Range(0, below=1)] = 0.3
    """Middle of the drawn ratios."""
    mask_variance: Share = 0.2
    """A ratio lies within mask_ratio plus and minus this."""
    mask_probability: Share = 0.5
    """Share of the large crops that are masked at all."""


PRESETS = {
    "imagenet": {"epochs": 800, "batch_size": 1024, "clip_each": 3.0},
    "imagenet-100": {
        "epochs": 100, "batch_size": 1024, "clip_each": 3.0, "teacher_temperature": 0.04, "patch_temperature": 0.04,
    },
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "projector": "256-256-64", "head_norm": "bn", "prototypes": 256,
        "augment": "grey", "crop": 0.3, "local_crops": 0, "target_decay": 0.99, "lr": 2e-3, "lr_scaling": "none",
        "weight_decay": 0.05, "final_weight_decay": 0.05, "final_lr": 0.0, "warmup_epochs": 1.0, "freeze_epochs": 1.0,
        "teacher_temperature": 0.04, "teacher_warmup_epochs": 0.0, "patch_temperature": 0.04, "keep": "student",
        "steps": 500, "batch_size": 64, "clip_each": 3.0,
    },
}  # fmt: skip


class IBOT(DINO):
    """iBOT on images of any number of channels."""

    slug = "ibot"
    config_class = Config
    config: Config
    modalities = ("image",)
    patch_center: Tensor

    def build(self) -> None:
        """Student and teacher, the mask token, the centres of class and patch tokens."""
        super().build()
        width: Any = self.encoder.dim
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("patch_center", torch.zeros(1, 1, self.config.prototypes))

    def encoder_options(self, name: str) -> dict[str, Any]:
        """See multi-crop.

        Raises:
            UserError: an encoder without patches.
        """
        if not networks.plain_vit(name):
            raise UserError(f"encoder={name}: {self.slug} hides tokens; use a ViT such as vit_small_patch16_224")
        return super().encoder_options(name)

    # ---- training --------------------------------------------------------------------------------------------
    @torch.no_grad()
    def hide(self, x: Tensor) -> Tensor:
        """Which patches of large crops (N, C, H, W) the student doesn't see: (N, L) bool."""
        c, vit = self.config, self._vit(self.encoder)
        if c.mask == "attention":
            copy: Any = self.momentum.average
            return attention_masks(self._vit(copy[0]).attention(x), c.mask_ratio)
        return drawn_ratio_masks(
            len(x), vit.grid, c.mask_ratio, variance=c.mask_variance, probability=c.mask_probability,
            blockwise=c.mask == "block", device=x.device,
        )  # fmt: skip

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The two cross-entropies (means over local rows); both centres move."""
        c, crops = self.config, self.seen(batch)
        large, rows = torch.cat(crops[:2]), len(crops[0])
        mask = self.hide(large)
        copy: Any = self.momentum.average
        student, patches = self._said(self.encoder, self.projector, large, mask)
        with torch.no_grad():
            teacher, target = self._said(copy[0], copy[1], large)
        said = list(student.split(rows))
        if len(crops) > 2:
            said += self.embed_crops(crops[2:], self.encoder, self.projector)
        pair = (2, rows)
        terms = objectives.ibot_terms(
            said, list(teacher.split(rows)), patches.unflatten(0, pair), target.unflatten(0, pair),
            mask.unflatten(0, pair), center=self.center if c.centering else None,
            patch_center=self.patch_center if c.centering else None, student_temperature=c.student_temperature,
            teacher_temperature=self.teacher_temperature, patch_temperature=self.patch_temperature, lambda1=c.lambda1,
            lambda2=c.lambda2,
        )  # fmt: skip
        self._move_centres(teacher, target)
        return terms

    @staticmethod
    def _vit(network: Any) -> networks.Encoder:
        found: networks.Encoder = network
        return found

    def _said(self, encoder: Any, head: Any, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits of the class tokens (N, K) and of the patches (N, L, K)."""
        whole, parts = encoder.tokens(x, mask=mask, mask_token=self.mask_token)
        together = head(torch.cat([whole[:, None], parts], 1).flatten(0, 1)).unflatten(0, (len(x), -1))
        return together[:, 0], together[:, 1:]

    @torch.no_grad()
    def _move_centres(self, teacher: Tensor, target: Tensor) -> None:
        """Towards the means of the raw logits, over all processes."""
        momentum = self.config.center_momentum
        whole = gather_labels(teacher.float().mean(0, keepdim=True))
        parts = gather_labels(target.float().mean((0, 1)).unsqueeze(0))
        self.center.copy_(objectives.dino_center(self.center, whole.unsqueeze(0), momentum=momentum))
        self.patch_center.copy_(objectives.ibot_center(self.patch_center, parts, momentum=momentum))

    @property
    def patch_temperature(self) -> float:
        """tau_2 now: a line from its start to its value, then constant."""
        c = self.config
        share = min(1.0, self.epochs_done / c.teacher_warmup_epochs) if c.teacher_warmup_epochs else 1.0
        return c.patch_temperature_start + share * (c.patch_temperature - c.patch_temperature_start)
