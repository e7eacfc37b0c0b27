"""DINO: a student matches the centred, sharpened output of its own moving average (Caron et al., arXiv 2104.14294).

    L = mean over u in 2 large crops, v != u of all crops:  -mean_b sum_k P_u[b,k] log softmax_k(s_v[b] / tau_s)
    P_u = softmax((t_u - c) / tau_t),      c <- 0.9 c + 0.1 mean(t)

s and t are the logits of student and teacher over K prototypes. The centre c keeps one prototype from taking all, the
low temperature tau_t keeps the teacher from being uniform; together they replace negatives and predictor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, NonNegative, Positive, Share
from selftaught.engine.distributed import gather_labels
from selftaught.engine.optim import clip_each
from selftaught.errors import UserError
from selftaught.methods._momentum import MomentumConfig, MomentumEmbedding
from selftaught.methods._multi_crop import MultiCrop, MultiCropConfig
from selftaught.methods._weight_decay import CosineWeightDecay
from selftaught.views import GaussianBlur, Pipeline, Solarize

__all__ = ["DINO"]


@dataclass
class Config(MultiCropConfig, MomentumConfig):
    """DINO's options; the defaults are the paper's ViT-S/16 on ImageNet."""

    encoder: str = "vit_small_patch16_224"
    lr: float = 5e-4
    weight_decay: float = 0.04
    final_weight_decay: NonNegative = 0.4
    """Weight decay at the end of the run, reached along half a cosine."""
    warmup_epochs: float = 10.0
    final_lr: float = 0.002
    crop: float = 0.4
    local_crops: int = 8
    projector: str = "2048-2048-256"
    """Widths of the head's layers: equal hidden ones, then the bottleneck before the prototypes."""
    head_norm: Literal["none", "bn"] = "none"
    """Normalisation after the head's hidden layers; bn helps small convolutional networks."""
    prototypes: Count = 65536
    """Outputs K of the head."""
    target_decay: float = 0.996
    student_temperature: Positive = 0.1
    """Temperature tau_s of the student."""
    teacher_temperature: Positive = 0.04
    """Temperature tau_t of the teacher; 0.07 after a warm-up in the long recipes."""
    teacher_temperature_start: Positive = 0.04
    """The teacher's temperature at the start."""
    teacher_warmup_epochs: NonNegative = 0.0
    """Epochs over which the teacher's temperature goes from its start to its value."""
    centering: bool = True
    """Take the centre out of the teacher's logits; off: one prototype takes all (ablation)."""
    center_momentum: Share = 0.9
    """Share of the old centre that a step keeps."""
    clip_each: NonNegative = 0.0
    """Largest norm of every parameter's own gradient (3 in the paper's runs of 100 epochs); 0 does not clip."""
    freeze_epochs: NonNegative = 1.0
    """Epochs before the prototypes begin to learn."""
    keep: Literal["teacher", "student"] = "teacher"
    """Whose encoder is judged and delivered; in short runs the teacher lags far behind the student."""


PRESETS = {
    "imagenet": {"epochs": 100, "batch_size": 1024, "clip_each": 3.0},
    "imagenet-long": {
        "crop": 0.25, "local_crops": 10, "teacher_temperature": 0.07, "teacher_warmup_epochs": 30.0, "epochs": 800,
        "batch_size": 1024,
    },
    "medmnist": {
        "encoder": "resnet50", "image_size": 32, "crop": 0.08, "local_crops": 0, "prototypes": 4096,
        "target_decay": 0.9995, "optimizer": "lars", "lr": 0.3, "lars_eta": 0.02, "lars_clip": True,
        "weight_decay": 1e-6, "final_weight_decay": 1e-6, "final_lr": 0.0, "epochs": 400, "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-256-64", "head_norm": "bn",
        "prototypes": 256, "augment": "small", "crop": 0.3, "local_crops": 2, "target_decay": 0.99, "lr": 4e-3,
        "weight_decay": 0.05, "final_weight_decay": 0.05, "final_lr": 0.0, "warmup_epochs": 1.0, "freeze_epochs": 1.0,
        "keep": "student", "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class DINO(CosineWeightDecay, MomentumEmbedding, MultiCrop):
    """DINO on images of any number of channels, or (without small crops) on sensor series."""

    slug = "dino"
    config_class = Config
    config: Config
    projector: nn.Module
    center: Tensor

    def build(self) -> None:
        """Student, teacher and the centre of the teacher's logits."""
        super().build()
        self.register_buffer("center", torch.zeros(self.config.prototypes))

    def head(self, widths: list[int]) -> nn.Module:
        """GELU layers, a bottleneck of length 1, weight-normalised prototypes."""
        dim, *hidden, bottleneck = widths
        if len(set(hidden)) > 1:
            raise UserError(
                f"projector={self.config.projector}: DINO's hidden layers have one width, as in 2048-2048-256"
            )
        return networks.dino_head(
            dim,
            self.config.prototypes,
            hidden=hidden[0] if hidden else bottleneck,
            bottleneck=bottleneck,
            layers=len(hidden) + 1,
            norm=self.config.head_norm,
        )

    # ---- views -----------------------------------------------------------------------------------------------
    def paper_views(self) -> list[Pipeline]:
        """Two large crops: one always blurred, one seldom blurred and sometimes solarised."""
        return list(views.barlow_twins(self.config.image_size, scale=(self.config.crop, 1.0)))

    def local_views(self, count: int) -> list[Pipeline]:
        """Small crops; in the paper's recipe blurred every other time and never solarised."""
        small = super().local_views(count)
        if self.config.augment in ("small", "grey", "mild"):
            return small
        kept = [tuple(op for op in view.ops if not isinstance(op, GaussianBlur | Solarize)) for view in small]
        return [Pipeline((*ops, GaussianBlur(0.5)), name=view.name) for ops, view in zip(kept, small, strict=True)]

    # ---- training --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy of all crops against the teacher's large ones (a mean over local rows); the centre moves."""
        c, crops = self.config, self.seen(batch)
        student = self.embed_crops(crops, self.encoder, self.projector)
        copy: Any = self.momentum.average
        with torch.no_grad():
            teacher = self.embed_crops(crops[:2], copy[0], copy[1])
        terms = objectives.dino_terms(
            student,
            teacher,
            center=self.center if c.centering else None,
            student_temperature=c.student_temperature,
            teacher_temperature=self.teacher_temperature,
        )
        local = torch.stack(teacher).float().mean((0, 1)).unsqueeze(0)
        moved = objectives.dino_center(self.center, gather_labels(local).unsqueeze(0), momentum=c.center_momentum)
        self.center.copy_(moved)
        return terms

    @property
    def teacher_temperature(self) -> float:
        """tau_t now: a line from the start to the value, then constant."""
        c = self.config
        share = min(1.0, self.epochs_done / c.teacher_warmup_epochs) if c.teacher_warmup_epochs else 1.0
        return c.teacher_temperature_start + share * (c.teacher_temperature - c.teacher_temperature_start)

    def frozen_at_first(self) -> tuple[nn.Module, bool]:
        """The head's prototypes, for ``freeze_epochs``."""
        return self.projector.prototypes, self.epochs_done < self.config.freeze_epochs  # type: ignore[return-value]

    def edit_gradients(self, optimizer: Any) -> None:
        """Frozen prototypes, the weight decay of this step, clipping of each."""
        super().edit_gradients(optimizer)
        for group in optimizer.param_groups:
            clip_each(group["params"], self.config.clip_each)

    # ---- what one keeps --------------------------------------------------------------------------------------
    def deliverable(self) -> nn.Module:
        """The teacher's encoder, or the student's."""
        copy: Any = self.momentum.average
        return copy[0] if self.config.keep == "teacher" else self.encoder

    def features(self, batch: dict[str, Any]) -> Tensor:
        """h (N, D): pooled features of the encoder that is kept."""
        return self.deliverable()(self.inputs(batch))
