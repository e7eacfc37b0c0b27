"""What watches a run: metrics on disk, finiteness, online k-NN."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from selftaught.engine.checkpoint import diverged
from selftaught.errors import UserError


class FiniteGuard(Callback):
    """Stop at the first term that is not a finite number, before it reaches a checkpoint.

    On a CPU every step is checked; elsewhere the flags stay on the device and are read every ``every`` steps.
    """

    def __init__(self, checkpoint: Path, every: int = 50) -> None:
        self.checkpoint, self.every = checkpoint, every
        self._flags: dict[str, torch.Tensor] = {}

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take in the step's terms and raise on the first that is not finite."""
        for name, value in outputs["terms"].items():
            bad = ~torch.isfinite(value)
            self._flags[name] = self._flags[name] | bad if name in self._flags else bad
        if module.device.type == "cpu" or module.steps % self.every == 0:
            self.check(module)

    def check(self, module: Any) -> None:
        """Raise a UserError that names the terms which were NaN or infinite since the last look."""
        names = [name for name, bad in self._flags.items() if bool(bad)]
        self._flags = {}
        parts = [name for name in names if name != "loss"] or names
        if parts:
            raise diverged(f"loss term {', '.join(parts)}", module.steps, self.checkpoint)


class Metrics(Callback):
    """``metrics.csv``: a row every ``every`` steps with the mean of each term since the last row.

    What was summed since the last row is part of a checkpoint, so a resumed run writes the rows that an uncut one does.

    Attributes:
        earlier: seconds of training before this process went on with it.
    """

    def __init__(self, path: Path, stage: str, every: int, batch_size: int) -> None:
        self.path, self.stage, self.every, self.batch_size = path, stage, every, batch_size
        self.rows: list[dict[str, Any]] = []
        self.extra: dict[str, float] = {}
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._count, self._time, self._step = 0, time.monotonic(), 0
        self._rate: float | None = None
        self.earlier, self._began = 0.0, time.monotonic()
        self.last: dict[str, Any] = {}
        self.late = False
        self._columns: list[str] = []
        self.warn: Callable[[str], Any] = print

    def state_dict(self) -> dict[str, Any]:
        """What was summed since the last row, the learning rate of the last step, and the seconds until now."""
        return {
            "rate": self._rate,
            "sums": self._sums,
            "counts": self._counts,
            "extra": self.extra,
            "count": self._count,
            "seconds": self.earlier + time.monotonic() - self._began,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the sums of a saved run."""
        self._sums, self._counts, self.extra = dict(state["sums"]), dict(state["counts"]), dict(state["extra"])
        self._count, self._rate = int(state["count"]), state.get("rate")
        self.earlier = float(state.get("seconds", 0.0))

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Keep the rows up to the step that the run starts from, drop what came after it."""
        if self.path.exists():
            try:
                with self.path.open(newline="") as file:
                    rows = list(csv.DictReader(file))
                self.rows = [r for r in rows if r["stage"] != self.stage or int(r["step"]) <= module.steps]
            except (KeyError, TypeError, ValueError, csv.Error):
                raise UserError(
                    f"{self.path} is damaged; remove it and go on: the run loses its earlier curve, nothing else"
                ) from None
        self._sums = {name: value.to(module.device) for name, value in self._sums.items()}
        self._time, self._step = time.monotonic(), module.steps

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        """Remember the learning rate that a step is made with; after it the schedule has moved on."""
        if trainer.optimizers[0] is optimizer:
            self._rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Sum the terms on the device; write a row where one is due."""
        for name, value in outputs["terms"].items():
            self._sums[name] = self._sums[name] + value.float() if name in self._sums else value.float()
            self._counts[name] = self._counts.get(name, 0) + 1
        self._count += 1
        if module.steps != self._step and module.steps % self.every == 0:
            self.flush(trainer, module.steps)
        self._step = module.steps

    def flush(self, trainer: L.Trainer, step: int) -> None:
        """Write the row of ``step``."""
        if not self._count:
            return
        now = time.monotonic()
        rate = self._count * self.batch_size * trainer.world_size / max(now - self._time, 1e-9)
        row: dict[str, Any] = {"stage": self.stage, "step": step}
        groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
        if groups:  # Lightning's stand-in of a method without gradient has none
            row["lr"] = f"{groups[0]['lr'] if self._rate is None else self._rate:.6g}"
        row["per_second"] = f"{rate:.1f}"
        row |= {name: f"{float(value) / self._counts[name]:.6g}" for name, value in self._sums.items()}
        row |= {name: f"{value:.6g}" for name, value in self.extra.items()}
        self.last, self.extra, self._sums, self._counts, self._count, self._time = row, {}, {}, {}, 0, now
        again = bool(self.rows) and (self.rows[-1]["stage"], int(self.rows[-1]["step"])) == (self.stage, step)
        if again:
            self.rows.pop()  # killed between this row and the run's end, which writes it once more
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write(whole=again or self.late or not row.keys() <= set(self._columns))

    def pause(self, seconds: float) -> None:
        """Leave seconds that went into something else out of the throughput."""
        self._time += seconds

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write what is left."""
        self.flush(trainer, module.steps)

    def _write(self, whole: bool) -> None:
        """The last row at the file's end, or all rows in a new file."""
        part = self.path.with_suffix(".part")
        try:
            if whole or not _appended(self.path, self._lines(self.rows[-1:])):
                self._columns = list(dict.fromkeys(name for row in self.rows for name in row))
                part.write_bytes(self._lines([dict(zip(self._columns, self._columns, strict=True)), *self.rows]))
                part.replace(self.path)
        except OSError as error:  # a full disk: all rows are written with the next one that finds room
            with suppress(OSError):
                part.unlink(missing_ok=True)
            if not self.late:
                self.warn(f"{self.path}: can't be written ({error.strerror}); training goes on, the rows are kept")
            self.late = True
        else:
            self.late = False

    def _lines(self, rows: list[dict[str, Any]]) -> bytes:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns, restval="").writerows(rows)
        return text.getvalue().encode()


def _appended(path: Path, lines: bytes) -> bool:
    """Write at the end of a file in one piece or not at all; False where there is no such file."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        return False
    try:
        before = os.fstat(file).st_size
        if os.write(file, lines) == len(lines):
            return True
        os.ftruncate(file, before)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)


ONLINE = {"knn": "k-NN", "probe": "linear probe"}
"""Columns of metrics.csv that hold a score of the embedding, and what each is called."""


class OnlineScores(Callback):
    """Accuracies of the embedding while it is learnt, a few times per run; draws no random number.

    Args:
        score: called with the method; returns accuracies by their column (see `ONLINE`), those that there are.
        total: optimiser steps of the stage.
        share: share of the run between scores.
        metrics: where the number goes.
    """

    def __init__(self, score: Callable[[Any], dict[str, float]], total: int, share: float, metrics: Metrics) -> None:
        self.score, self.metrics = score, metrics
        share = max(share, 1 / max(total, 1))  # at most one score a step
        self.steps = {max(1, round(total * share * (k + 1))) for k in range(math.ceil(1 / share))} | {total}
        self._done = -1

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Score at the steps that were chosen ahead."""
        step = module.steps
        if step not in self.steps or step == self._done:
            return
        self._done = step
        started = time.monotonic()
        found = self.score(module)
        self.metrics.pause(time.monotonic() - started)
        self.metrics.extra |= found
