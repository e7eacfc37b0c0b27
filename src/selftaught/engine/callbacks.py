"""What watches a run: metrics on disk, finiteness, online k-NN, progress on the terminal, averaged weights."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from selftaught.engine.ema import MovingAverage
from selftaught.errors import UserError


class FiniteGuard(Callback):
    """Stop at the first term that is not a finite number, before it reaches a checkpoint.

    On a CPU every step is checked; elsewhere the flags stay on the device and are read every ``every`` steps.
    """

    def __init__(self, checkpoint: Path, every: int = 50) -> None:
        self.checkpoint, self.every = checkpoint, every
        self._flags: dict[str, torch.Tensor] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the step's terms and raise on the first that is not finite."""
        for name, value in outputs["terms"].items():
            bad = ~torch.isfinite(value)
            self._flags[name] = self._flags[name] | bad if name in self._flags else bad
        if module.device.type == "cpu" or trainer.global_step % self.every == 0:
            self.check(trainer)

    def check(self, trainer: L.Trainer) -> None:
        """Raise a UserError that names the terms which were NaN or infinite since the last look."""
        names = [name for name, bad in self._flags.items() if bool(bad)]
        self._flags = {}
        parts = [name for name in names if name != "loss"] or names
        if parts:
            kept = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint.exists() else "none saved yet"
            raise UserError(
                f"loss term {', '.join(parts)} became NaN or infinite at step {trainer.global_step}; {kept}; "
                "try a smaller --lr, --clip 1 or --precision 32"
            )


class Metrics(Callback):
    """``metrics.csv``: a row every ``every`` steps with the mean of each term since the last row."""

    def __init__(self, path: Path, stage: str, every: int, batch_size: int) -> None:
        self.path, self.stage, self.every, self.batch_size = path, stage, every, batch_size
        self.rows: list[dict[str, Any]] = []
        self.extra: dict[str, float] = {}
        self._sums: dict[str, torch.Tensor] = {}
        self._count, self._time, self._step = 0, time.monotonic(), 0
        self.last: dict[str, Any] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep the rows up to the step that the run starts from, drop what came after it."""
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.rows = [r for r in rows if r["stage"] != self.stage or int(r["step"]) <= trainer.global_step]
        self._time, self._step = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sum the terms on the device; write a row where one is due."""
        for name, value in outputs["terms"].items():
            self._sums[name] = self._sums[name] + value.float() if name in self._sums else value.float()
        self._count += 1
        step = trainer.global_step
        if step != self._step and step % self.every == 0:
            self.flush(trainer, step)
        self._step = step

    def flush(self, trainer: L.Trainer, step: int) -> None:
        """Write the row of ``step``."""
        if not self._count:
            return
        now = time.monotonic()
        rate = self._count * self.batch_size * trainer.world_size / max(now - self._time, 1e-9)
        row: dict[str, Any] = {
            "stage": self.stage,
            "step": step,
            "lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}",
            "per_second": f"{rate:.1f}",
        }
        row |= {name: f"{float(value) / self._count:.6g}" for name, value in self._sums.items()}
        row |= {name: f"{value:.6g}" for name, value in self.extra.items()}
        self.last, self.extra, self._sums, self._count, self._time = row, {}, {}, 0, now
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write what is left."""
        self.flush(trainer, trainer.global_step)

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        part.replace(self.path)


class OnlineKNN(Callback):
    """The k-NN accuracy of the embedding while it is learnt, a few times per run; draws no random number.

    Args:
        score: called with the method; returns the accuracy.
        total: optimiser steps of the stage.
        share: share of the run between scores.
        metrics: where the number goes.
    """

    def __init__(self, score: Callable[[Any], float], total: int, share: float, metrics: Metrics) -> None:
        self.score, self.metrics = score, metrics
        self.steps = {max(1, round(total * share * (k + 1))) for k in range(math.ceil(1 / share))} | {total}
        self._done = -1

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Score at the steps that were chosen ahead."""
        step = trainer.global_step
        if step not in self.steps or step == self._done:
            return
        self._done = step
        started = time.monotonic()
        accuracy = self.score(module)
        self.metrics._time += time.monotonic() - started
        self.metrics.extra["knn"] = accuracy
        self.metrics.last = self.metrics.last | {"knn": f"{accuracy:.4f}"}


class Averaged(Callback):
    """An exponential moving average of the weights; the deliverable is taken from it at the end."""

    def __init__(self, method: Any, decay: float) -> None:
        self.average = MovingAverage(method.deliverable(), decay)
        self._step = 0

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved averaged weights."""
        self.average.load_state_dict(state)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """The average lives where the weights do."""
        self.average.to(module.device)
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average after every optimiser step."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self.average.update(module.deliverable())

    def copy_to(self, method: Any) -> None:
        """Give the method's deliverable the averaged weights."""
        method.deliverable().load_state_dict(self.average.average.state_dict())


class Progress(Callback):
    """A bar with the terms, throughput, time left and online k-NN on a terminal; a line now and then elsewhere."""

    def __init__(self, title: str, total: int, metrics: Metrics, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.console = Console(stderr=True)
        self.title, self.total, self.metrics, self.quiet = title, total, metrics, quiet
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
        )
        self.bar = Bar(*columns, console=self.console, transient=False)
        self._task: Any = None
        self._printed = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show the bar."""
        if self.quiet or not trainer.is_global_zero:
            return
        if self.console.is_terminal:
            self.bar.start()
            self._task = self.bar.add_task(self.title, total=self.total, completed=trainer.global_step, terms="")
        else:
            self.console.print(f"{self.title}: {self.total} steps", highlight=False, soft_wrap=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self.quiet or not trainer.is_global_zero:
            return
        if self._task is not None:
            self.bar.update(self._task, completed=trainer.global_step, terms=self._terms())
        elif time.monotonic() - self._printed > 20 and self.metrics.last:
            self._printed = time.monotonic()
            line = f"{self.title}: step {trainer.global_step}/{self.total}  {self._terms()}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def _terms(self) -> str:
        row = self.metrics.last
        shown = [f"{k} {float(v):.3g}" for k, v in row.items() if k not in ("stage", "step", "lr", "per_second", "knn")]
        shown += [f"{float(row['per_second']):.0f}/s"] if "per_second" in row else []
        knn = next((r["knn"] for r in reversed(self.metrics.rows) if r.get("knn")), None)
        return "  ".join(shown + ([f"k-NN {float(knn):.3f}"] if knn else []))

    def stop(self) -> None:
        """Take the bar down, whatever happened."""
        if self._task is not None:
            self.bar.stop()
            self._task = None

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Take the bar down."""
        self.stop()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Take the bar down before the message."""
        self.stop()
