"""Which weights a stage ends with: the last, their moving average, or those of the lowest watched loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from selftaught.engine.callbacks import Metrics
from selftaught.engine.ema import MovingAverage


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

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """The average lives where the weights do."""
        self.average.to(module.device)
        self._step = module.steps

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average after every optimiser step."""
        if module.steps != self._step:
            self._step = module.steps
            self.average.update(module.deliverable())

    def copy_to(self, method: Any) -> None:
        """Give the method's deliverable the averaged weights."""
        method.deliverable().load_state_dict(self.average.average.state_dict())


class Best(Callback):
    """Remember the weights of the lowest watched loss, one look per epoch; stop early where nothing is gained.

    Everything it knows is part of a checkpoint. Without a ``look`` it watches the mean training loss of an epoch.

    Args:
        every: batches between two looks.
        patience: looks without a lower loss after which training ends; 0 never.
        metrics: where the watched loss goes.
        look: of the method: the loss on held-out samples, or None to watch the training loss.
    """

    def __init__(self, every: int, patience: int, metrics: Metrics, look: Callable[[Any], float] | None = None) -> None:
        self.every, self.patience, self.metrics, self.look = every, patience, metrics, look
        self.loss, self.step, self.since, self.stopped = math.inf, 0, 0, False
        self.weights: dict[str, Any] = {}
        self._sum, self._count = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """The best weights so far, and how long ago they were."""
        return {
            "loss": self.loss, "step": self.step, "since": self.since, "stopped": self.stopped,
            "weights": self.weights, "sum": self._sum, "count": self._count,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.loss, self.step, self.since = float(state["loss"]), int(state["step"]), int(state["since"])
        self.stopped, self.weights = bool(state["stopped"]), dict(state["weights"])
        self._sum, self._count = float(state["sum"]), int(state["count"])

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look at the end of an epoch."""
        if self.look is None:
            self._sum += float(outputs["terms"]["loss"])
        self._count += 1
        if self._count >= self.every:
            value = self._sum / self._count if self.look is None else self.look(module)
            self._sum, self._count = 0.0, 0
            self._note(value, module)
            if self.patience and self.since >= self.patience:
                self.stopped = True
                trainer.should_stop = True

    def _note(self, value: float, module: Any) -> None:
        self.metrics.extra["watched"] = value
        self.since += 1
        if value < self.loss:
            self.loss, self.step, self.since = value, module.steps, 0
            self.weights = {name: _copied(value) for name, value in module.state_dict().items()}

    def copy_to(self, method: Any) -> None:
        """Give the method its best weights; nothing happens where no look was taken."""
        if self.weights:
            method.load_state_dict(self.weights)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def mean_loss(method: Any, batches: Any) -> float:
    """Mean ``loss`` of the method's :meth:`validate` over batches, weighed by their size, without gradient or BatchNorm
    updates; the generators of chance are left as they were.
    """
    was, total, count = method.training, 0.0, 0
    method.eval()
    devices = [method.device] if method.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), method.trainer.precision_plugin.forward_context():
        torch.manual_seed(0)
        for batch in batches:
            batch.pop("skipped", None)
            moved = method.transfer_batch_to_device(batch, method.device, 0)
            loss = method.validate(method.on_after_batch_transfer(moved))["loss"]
            total, count = total + float(loss) * len(batch["index"]), count + len(batch["index"])
    method.train(was)
    return total / max(count, 1)
