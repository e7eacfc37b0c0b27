"""Infinite learning rates for continual masked autoencoders (Singh et al., CoLLAs 2025, arXiv 2503.02844).

    warm-up -> cooldown -> a constant rate for ever;    a model to use is annealed off to the side at any time

One masked autoencoder learns data sets (or groups of classes) one after another: ``--then SOURCE`` or
``--class-tasks N``. Each task begins at the last one's branch point, the end of its constant phase, at the constant
rate: nothing is warmed up again, which is what makes a network forget. The schedule goes with every method
(``--schedule infinite``); here it is the default, and MAS and LwF, which hold the network near what it knew, are
options.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught import objectives
from selftaught.catalog.rules import NonNegative, Share
from selftaught.engine.in_order import evaluation_batches
from selftaught.engine.method import Schedule
from selftaught.methods.mae import MAE
from selftaught.methods.mae import Config as MAEConfig

__all__ = ["InfiniteLR"]

_BATCHES = 16
"""Batches of 64 over which the importance of weights is measured, at most."""


@dataclass
class Config(MAEConfig):
    """Options of continual masked autoencoders; the defaults are the paper's CIFAR-10 experiments."""

    encoder: str = "vit_tiny_patch16_224"
    image_size: int = 32
    patch: int = 2
    augment: Literal["paper", "small", "grey", "mild", "none"] = "none"
    positions: Literal["sincos", "learnt"] = "learnt"
    norm_pix: bool = False
    decoder: str = "192-4-3"
    decoder_project: bool = False
    lr: float = 6.8e-4
    weight_decay: float = 5e-3
    warmup_epochs: float = 20.0
    schedule: Schedule = "infinite"
    cooldown_end: float = 0.5
    constant_lr: float = 0.75
    anneal_lr: float = 0.05
    regulariser: Literal["none", "mas", "lwf"] = "none"
    """What holds the encoder near what it knew in further tasks: important weights (mas), or its features (lwf)."""
    mas_weight: NonNegative = 1.0
    """Weight lambda of MAS."""
    mas_alpha: Share = 0.5
    """Share of the earlier tasks in the importance of weights."""
    lwf_weight: NonNegative = 1.0
    """Weight alpha of LwF."""


PRESETS = {
    "cifar10": {"class_tasks": 5, "epochs": 400, "batch_size": 512},
    "cifar10-cosine": {
        "schedule": "cosine", "lr": 3.8e-4, "final_lr": 0.05, "class_tasks": 5, "epochs": 400, "batch_size": 512,
    },
    "cifar10-er": {"continual": "er", "memory": 0.1, "class_tasks": 5, "epochs": 400, "batch_size": 512},
    "cifar10-gdumb": {"continual": "gdumb", "memory": 0.1, "class_tasks": 5, "epochs": 400, "batch_size": 512},
    "cifar10-joint": {"continual": "joint", "class_tasks": 5, "epochs": 400, "batch_size": 512},
    "cifar10-mas": {"regulariser": "mas", "class_tasks": 5, "epochs": 400, "batch_size": 512},
    "cifar10-lwf": {"regulariser": "lwf", "class_tasks": 5, "epochs": 400, "batch_size": 512},
    "imagenet": {
        "encoder": "vit_base_patch16_224", "image_size": 224, "patch": 16, "augment": "paper", "positions": "sincos",
        "norm_pix": True, "decoder": "512-8-16", "decoder_project": True, "lr": 1.5e-4, "weight_decay": 0.05,
        "warmup_epochs": 40.0, "cooldown_end": 0.3, "constant_lr": 0.25, "anneal_lr": 0.1, "epochs": 300,
        "batch_size": 4096,
    },
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "patch": 0, "augment": "none", "positions": "sincos", "pool": "avg",
        "decoder": "64-1-4", "decoder_project": True, "lr": 2e-3, "lr_scaling": "none", "weight_decay": 0.05,
        "warmup_epochs": 1.0, "cooldown_end": 0.3, "constant_lr": 0.5, "anneal_lr": 0.1, "steps": 400,
        "batch_size": 64,
    },
}  # fmt: skip


class InfiniteLR(MAE):
    """A masked autoencoder for streams of tasks, on images of any number of channels."""

    slug = "infinite-lr"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The masked autoencoder, and what is kept of the network before the current task."""
        super().build()
        if self.config.regulariser == "lwf":
            self.old = copy.deepcopy(self.encoder).requires_grad_(False)
        if self.config.regulariser == "mas":
            self.omega, self.anchor = (self._beside() for _ in range(2))

    def _beside(self) -> nn.ParameterList:
        """A tensor for each of the encoder's weights, never trained."""
        return nn.ParameterList(nn.Parameter(torch.zeros_like(p), requires_grad=False) for p in self._weights())

    def _weights(self) -> list[nn.Parameter]:
        return [p for p in self.encoder.parameters() if p.requires_grad]

    # ---- from one task to the next ---------------------------------------------------------------------------
    def begin_task(self, source: Any) -> None:
        """Keep the network as the last task left it; measure, on that task's samples, which weights matter."""
        if self.config.regulariser == "lwf":
            self.old.load_state_dict(self.encoder.state_dict())
        if self.config.regulariser == "mas":
            found = self.importance(source)
            if self.task > 1:
                found = objectives.mas_merge(list(self.omega), found, alpha=self.config.mas_alpha)
            with torch.no_grad():
                for kept, new in zip(self.omega, found, strict=True):
                    kept.copy_(new)
                for kept, now in zip(self.anchor, self._weights(), strict=True):
                    kept.copy_(now)

    def importance(self, source: Any) -> list[Tensor]:
        """omega of the encoder's weights: mean over batches of |d G / d theta|, G of the patch tokens of whole images.

        A weight that the tokens don't depend on has none.
        """
        weights = self._weights()
        total, count = [torch.zeros_like(p) for p in weights], 0
        found = evaluation_batches(
            source, self.evaluation_view(), batch_size=64, workers=0, stop=min(len(source), 64 * _BATCHES),
            value_range=self.value_range, channels=self.channels,
        )  # fmt: skip
        for batch in found:
            view = self.on_after_batch_transfer(batch)["views"][0].to(self.device)
            output = objectives.mas_output(self.encoder_network.tokens(view)[1])
            slopes = torch.autograd.grad(output, weights, allow_unused=True)
            total = [t if g is None else t + g.abs() for t, g in zip(total, slopes, strict=True)]
            count += 1
        return [t / max(count, 1) for t in total]

    # ---- training --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The error of the hidden patches, and in further tasks the regulariser."""
        x, c = batch["views"][0], self.config
        keep = self.visible(len(x), x.device)
        whole, seen = self.encoder_network.tokens(x, keep)
        terms = {"mae": self.error(x, keep, whole, seen)}
        if self.task and c.regulariser == "mas":
            terms["mas"] = objectives.mas_penalty(
                self._weights(), list(self.anchor), list(self.omega), weight=c.mas_weight
            )
        if self.task and c.regulariser == "lwf":
            old: Any = self.old
            with torch.no_grad():
                known = old.tokens(x, keep)[1]
            terms["lwf"] = objectives.lwf(seen, known, alpha=c.lwf_weight)
        return {"loss": torch.stack(list(terms.values())).sum()} | terms

    def validate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The error of the hidden patches alone, so that tasks can be compared."""
        return super().loss(batch)
