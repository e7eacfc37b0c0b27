"""Where a method's run stands: the steps of its stage, the batches of an epoch, how much of it is done."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any, ClassVar

import lightning as L

from selftaught.errors import UserError

__all__ = ["Standing"]

_NO_LENGTH = (
    "{slug}: the data have no length, so that every batch counts as an epoch in warmup_epochs and the like; give the "
    "Trainer limit_train_batches, or call method.plan(steps, batches of an epoch) before fit"
)


class Standing(L.LightningModule):
    """The part of :class:`selftaught.engine.method.Method` that counts; see there for the attributes."""

    slug: ClassVar[str] = ""
    config: Any
    accumulate: int
    steps: int
    _planned: tuple[int, int] | None
    _batches: int
    _samples_per_step: int

    def plan(self, total_steps: int, epoch_batches: int, samples: int = 256) -> None:
        """Fix the length of the current stage: its steps, and batches per pass over the data. Steps start at 0.

        Args:
            total_steps: optimiser steps.
            epoch_batches: batches per pass over the data on one process.
            samples: per step, as long as no trainer knows them better.
        """
        self._planned, self.steps, self._batches = (total_steps, epoch_batches), 0, 0
        self._samples_per_step = samples

    @property
    def total_steps(self) -> int:
        """Steps of the current stage; 1 without a trainer."""
        if self._planned is not None:
            return max(1, self._planned[0])
        if self._trainer is None:
            return 1
        stream = getattr(getattr(self.trainer, "datamodule", None), "total_batches", None)
        batches = self._loader()[1] if stream is None else stream  # no loader of ours before its checkpoint is read
        epochs, steps = self.trainer.max_epochs, self.trainer.max_steps
        ends = [batches * epochs / self.accumulate] if epochs is not None and epochs >= 0 else []
        total = min([*ends, *([steps] if steps >= 0 else [])], default=math.inf)
        if total == math.inf:
            raise UserError(
                f"{self.slug}: schedules need an end; give the Trainer max_steps, or max_epochs and its length"
            )
        return max(1, int(total))

    @property
    def epoch_batches(self) -> int:
        """Batches per pass over the data on one process; 1 without a trainer.

        Of a trainer of one's own it is the length of its epoch: of its loader, or ``limit_train_batches``.
        """
        if self._planned is not None:
            return self._planned[1]
        if self._trainer is None:
            return 1
        module: Any = getattr(self.trainer, "datamodule", None)
        if getattr(module, "total_batches", None) is not None:  # one Lightning epoch is the whole stream
            return int(module.epoch_batches(self.trainer.world_size))
        batches = self._loader()[1]
        if batches == math.inf:
            warnings.warn(_NO_LENGTH.format(slug=self.slug), stacklevel=2)
            return 1
        return max(1, int(batches))

    def _loader(self) -> tuple[Any, float]:
        """The trainer's loader (the first of several), set up if it isn't yet, and the batches that an epoch takes."""
        if self.trainer.train_dataloader is None:
            self.trainer.fit_loop.setup_data()
        loader: Any = self.trainer.train_dataloader
        while isinstance(loader, dict | list | tuple) and loader:
            loader = next(iter(loader.values())) if isinstance(loader, dict) else loader[0]
        return loader, self.trainer.num_training_batches

    @property
    def samples_per_step(self) -> int:
        """Samples per step, over all processes and accumulated batches; as planned, or 256, where nobody knows."""
        if self._trainer is None:
            return self._samples_per_step
        rows = getattr(getattr(self.trainer, "datamodule", None), "batch_size", None)
        if rows is None:
            loader = self._loader()[0]
            rows = getattr(loader, "batch_size", None) or getattr(loader.batch_sampler, "batch_size", None)
        return int(rows or self._samples_per_step) * self.trainer.world_size * self.accumulate

    @property
    def progress(self) -> float:
        """Share of the current stage that is done, in [0, 1]; 0 where its length isn't known."""
        known = self._planned is not None or self._trainer is not None
        return min(1.0, self.steps / self.total_steps) if known else 0.0

    def scheduled(self) -> dict[str, float]:
        """Options that change over the stage besides the learning rate, as they are at this step.

        An option is scheduled where the class has a property of its name: ``teacher_temperature``, ``weight_decay``.
        """
        names = (field.name for field in dataclasses.fields(self.config))
        found = {name: getattr(self, name) for name in names if isinstance(getattr(type(self), name, None), property)}
        return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}

    @property
    def epochs_done(self) -> float:
        """Passes over the data so far in this stage."""
        return self.steps * self.accumulate / self.epoch_batches
