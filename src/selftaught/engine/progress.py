"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from selftaught._words import plural
from selftaught.data.kinds import kind_of
from selftaught.engine.callbacks import ONLINE, Metrics


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
        self._printed = self._began = time.monotonic()
        self._start = 0
        self._unit = "/s"

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Show the bar."""
        if self.quiet or not trainer.is_global_zero:
            return
        self._began, self._start = time.monotonic(), module.steps
        self._unit = f" {kind_of(module.modality).rate}"
        if self.console.is_terminal:
            self.bar.start()
            self._task = self.bar.add_task(self.title, total=self.total, completed=module.steps, terms="")
        else:
            self.console.print(f"{self.title}: {plural(self.total, 'step')}", highlight=False, soft_wrap=True)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar."""
        if self.quiet or not trainer.is_global_zero:
            return
        if self._task is not None:
            self.bar.update(self._task, completed=module.steps, terms=self._terms())
        elif time.monotonic() - self._printed > 20 and self.metrics.last:
            self._printed = time.monotonic()
            left = self._left(module.steps)
            line = f"{self.title}: step {module.steps}/{self.total}{left}  {self._terms()}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def _left(self, step: int) -> str:
        """The time that the rest will take at the speed so far."""
        done = step - self._start
        if done < 1:
            return ""
        seconds = round((time.monotonic() - self._began) / done * (self.total - step))
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f", {hours}:{minutes:02d}:{seconds:02d} left" if hours else f", {minutes}:{seconds:02d} left"

    def _terms(self) -> str:
        row = self.metrics.last
        hidden = ("stage", "step", "lr", "per_second", *ONLINE)
        shown = [f"{k} {float(v):.3g}" for k, v in row.items() if k not in hidden]
        shown += [f"{float(row['per_second']):.0f}{self._unit}"] if "per_second" in row else []
        for column, title in ONLINE.items():
            score = next((r[column] for r in reversed(self.metrics.rows) if r.get(column)), None)
            shown += [f"{title} {float(score):.3f}"] if score else []
        return "  ".join(shown)

    def stop(self) -> None:
        """Take the bar down, whatever happened."""
        if self._task is not None:
            self.bar.stop()
            self._task = None

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Take the bar down."""
        self.stop()

    def on_exception(self, trainer: L.Trainer, module: Any, exception: BaseException) -> None:
        """Take the bar down before the message."""
        self.stop()
