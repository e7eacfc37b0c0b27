"""The base of every method: a LightningModule with a card, a typed config, named loss terms and a prediction."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor, nn

from selftaught.engine.optim import build_optimizer, learning_rate_factor, parameter_groups, scaled_lr
from selftaught.errors import UserError
from selftaught.views import Pipeline, render_batch

Optimizer = Literal["adamw", "adam", "sgd", "lars"]
LearningRateScaling = Literal["linear", "none"]
Schedule = Literal["cosine", "constant", "step"]


@dataclass
class MethodConfig:
    """Options that every method has: the optimiser and its schedule."""

    optimizer: Optimizer = "adamw"
    """Optimiser; biases and norms are left out of weight decay and of LARS' adaptation."""
    lr: float = 1e-3
    """Base learning rate, for a batch of 256 when lr_scaling is linear."""
    lr_scaling: LearningRateScaling = "linear"
    """linear: lr times (batch over all processes) / 256."""
    weight_decay: float = 1e-4
    """Weight decay (decoupled in AdamW)."""
    momentum: float = 0.9
    """Momentum of SGD and LARS, first beta of Adam."""
    lars_eta: float = 0.001
    """Trust coefficient of LARS."""
    lars_clip: bool = False
    """LARS never steps further than plain SGD would."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up from 0, at most a fifth of the run."""
    schedule: Schedule = "cosine"
    """What the learning rate does after the warm-up."""
    final_lr: float = 0.0
    """Share of the learning rate that the cosine ends at."""
    decay_every: float = 0.2
    """Share of the run between decays of the step schedule."""
    decay_factor: float = 0.5
    """Factor of each decay of the step schedule."""


class Method(L.LightningModule):
    """One published system, wired from the shared rooms.

    Subclasses set ``config_class``, build their networks in ``build`` and define ``loss`` and ``predict``.

    Args:
        config: an instance of the class's ``config_class``; None takes the paper's defaults.
        channels: channels C of a sample.
        length: samples T of a series window (series only).
        samples: size of the training set, for methods that keep a state per sample; 0 where it is not known.
        classes: number of classes of the training set, for methods that learn from labels; 0 without labels.
        **options: single fields of the config, overriding it.

    Raises:
        UserError: an option that the config does not have, or a value outside its choices.
    """

    config_class: ClassVar[type[MethodConfig]] = MethodConfig
    slug: ClassVar[str] = ""
    modality: Literal["image", "series"] = "image"
    output: ClassVar[Literal["embedding", "image", "classes"]] = "embedding"
    needs_labels: ClassVar[bool] = False
    stages: ClassVar[tuple[str, ...]] = ("train",)
    pixels: ClassVar[Literal["uint8", "float32"]] = "uint8"
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        config: MethodConfig | None = None,
        *,
        channels: int = 3,
        length: int | None = None,
        samples: int = 0,
        classes: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.config = configure(type(self).config_class, config, options)
        self.channels, self.length, self.samples, self.classes = channels, length, samples, classes
        if self.needs_labels and classes < 2:
            raise UserError(f"{self.slug} learns from labels: give data with at least two classes (class folders)")
        self.stage = self.stages[0]
        self.epoch_batches = 1
        self.value_range: Any = None
        self.register_buffer("pixel_mean", torch.full((channels,), 0.5))
        self.register_buffer("pixel_std", torch.full((channels,), 0.25))
        self.build()

    # ---- what a method defines -------------------------------------------------------------------------------
    def build(self) -> None:
        """Make the networks."""

    def views(self) -> list[Pipeline]:
        """The views of a sample to learn from, one pipeline each (images)."""
        return []

    def evaluation_view(self) -> Pipeline | None:
        """The one deterministic view to embed a sample with (images)."""
        return None

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Named scalar terms of the objective; ``loss`` is the one to minimise."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """What ``apply`` writes: embeddings (N, D), restored images (N, C, H, W), or class logits (N, K)."""
        raise TypeError(f"{type(self).__name__} defines no prediction")

    def features(self, batch: dict[str, Any]) -> Tensor:
        """Embeddings (N, D) that the protocols judge: the prediction, unless that is something else."""
        return self.predict(batch)

    def deliverable(self) -> nn.Module:
        """The module that a user takes away: normalised samples in, embedding or image out."""
        raise TypeError(f"{type(self).__name__} delivers no module")

    def deliverable_spec(self) -> dict[str, Any]:
        """JSON-able account of how to build :meth:`deliverable` again, without selftaught where that is possible."""
        return {}

    def after_step(self) -> None:
        """What follows an optimiser step and belongs to it: momentum copies, normalised prototypes, clamps."""

    def enter_stage(self, stage: str) -> None:
        """Prepare for one of ``stages``: freeze what it leaves alone."""
        self.stage = stage

    def trained_modules(self) -> nn.Module:
        """What the current stage optimises."""
        return self

    # ---- what all methods share ------------------------------------------------------------------------------
    @property
    def total_steps(self) -> int:
        """Optimiser steps of the current stage; 1 without a trainer."""
        return max(1, int(self.trainer.estimated_stepping_batches)) if self._trainer is not None else 1

    @property
    def progress(self) -> float:
        """Share of the current stage that is done, in [0, 1]; 0 without a trainer."""
        return min(1.0, self.trainer.global_step / self.total_steps) if self._trainer is not None else 0.0

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimiser's step and, before anything can be saved, what the method does after it."""
        super().optimizer_step(*args, **kwargs)
        self.after_step()

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int = 0) -> dict[str, Any]:
        """Make views where that was left to the device, and turn them into normalised float32."""
        if "images" in batch:
            pairs = zip(self.views(), batch.pop("params"), strict=True)
            images = batch.pop("images")
            batch["views"] = [render_batch(images, pipeline, params) for pipeline, params in pairs]
        if "views" in batch:
            batch["views"] = [self.normalise(view) for view in batch["views"]]
        return batch

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 or [0, 1] float images (N,C,H,W) -> float32 with the run's channel mean and deviation taken out."""
        if self.pixels == "float32":
            return image.float()
        scale = 255.0 if image.dtype == torch.uint8 else 1.0
        mean, std = self.pixel_mean[:, None, None], self.pixel_std[:, None, None]
        image = (image.float() - mean * scale) / (std * scale)
        return image.contiguous(memory_format=torch.channels_last) if image.dim() == 4 else image

    def training_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, Tensor]:
        """One step: the method's loss, its terms logged without a wait for the device."""
        terms = self.loss(batch)
        detached = {name: value.detach() for name, value in terms.items()}
        if self._trainer is not None and self.trainer.loggers:
            self.log_dict(detached, prog_bar=False, batch_size=len(batch["index"]))
        return {"loss": terms["loss"], "terms": detached}  # type: ignore[dict-item]

    def configure_optimizers(self) -> Any:
        """The config's optimiser with its schedule, stepped every optimiser step."""
        c, trainer, total = self.config, self.trainer, self.total_steps
        batch = (
            getattr(getattr(trainer, "datamodule", None), "batch_size", 256)
            * trainer.world_size
            * trainer.accumulate_grad_batches
        )
        lr = scaled_lr(c.lr, batch) if c.lr_scaling == "linear" else c.lr
        scaled_and_clipped = trainer.precision == "16-mixed" and trainer.gradient_clip_val
        optimizer = build_optimizer(
            c.optimizer,
            self.parameter_groups(lr),
            lr=lr,
            momentum=c.momentum,
            betas=(c.momentum, 0.999),
            eta=c.lars_eta,
            clip=c.lars_clip,
            fused=False if scaled_and_clipped else None,
        )
        per_epoch = max(1, self.epoch_batches // trainer.accumulate_grad_batches)
        warmup = min(round(c.warmup_epochs * per_epoch), total // 5)

        def factor(step: int) -> float:
            return learning_rate_factor(
                step,
                total=total,
                warmup=warmup,
                schedule=c.schedule,
                minimum=c.final_lr,
                milestones=[round(total * c.decay_every * (k + 1)) for k in range(round(1 / c.decay_every))],
                gamma=c.decay_factor,
            )

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups for the optimiser: weights, and what is left out of weight decay."""
        return parameter_groups(self.trained_modules(), weight_decay=self.config.weight_decay)


def configure(kind: type[MethodConfig], config: MethodConfig | None, options: dict[str, Any]) -> MethodConfig:
    """Merge single options into a config and check names and choices.

    Raises:
        UserError: names the option and what it may be.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in options:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(sorted(fields))}"
            raise UserError(f"no option {name!r} in this method: {hint}")
    merged = dataclasses.replace(config or kind(), **options)
    _check_choices(kind, merged)
    return merged


def _check_choices(kind: type, config: MethodConfig) -> None:
    import typing

    for name, hint in typing.get_type_hints(kind).items():
        if typing.get_origin(hint) is Literal and getattr(config, name) not in typing.get_args(hint):
            choices = ", ".join(map(str, typing.get_args(hint)))
            raise UserError(f"option {name} is {getattr(config, name)!r}; it may be: {choices}")
