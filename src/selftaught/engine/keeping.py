"""Which weights a stage ends with: the last, their moving average, or those of the lowest watched loss."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from selftaught.engine.callbacks import Metrics
from selftaught.engine.distributed import mean_over_processes
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

    Attributes:
        column: of metrics.csv that holds what is watched.

    Args:
        every: batches between two looks.
        patience: looks without a lower loss after which training ends; 0 never.
        metrics: where the watched loss goes.
        look: of the method: the loss on held-out samples, or None to watch the training loss.
        keep: whether the best weights are remembered; else the loss is only written down.
    """

    column = "watched"

    def __init__(
        self,
        every: int,
        patience: int,
        metrics: Metrics,
        look: Callable[[Any], float] | None = None,
        keep: bool = True,
    ) -> None:
        self.every, self.patience, self.metrics, self.look, self.keep = every, patience, metrics, look, keep
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
            began = time.monotonic()
            value = self._sum / self._count if self.look is None else self.look(module)
            self.metrics.pause(time.monotonic() - began)
            self._sum, self._count = 0.0, 0
            self._note(value, module)
            if self.patience and self.since >= self.patience:
                self.stopped = True
                trainer.should_stop = True

    def _note(self, value: float, module: Any) -> None:
        self.metrics.extra[self.column] = value
        self.since += 1
        if value < self.loss and self.keep:
            self.loss, self.step, self.since = value, module.steps, 0
            self.weights = {name: _copied(value) for name, value in module.state_dict().items()}

    def copy_to(self, method: Any) -> None:
        """Give the method its best weights; nothing happens where no look was taken."""
        if self.weights:
            method.load_state_dict(self.weights)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


@contextmanager
def untouched(method: nn.Module) -> Iterator[None]:
    """Whatever is computed meanwhile leaves no trace in a method: buffers, counters, queues and caches are put back."""
    kept: list[Callable[[], object]] = []
    for module in method.modules():
        kept += [partial(value.copy_, value.clone()) for value in module._buffers.values() if value is not None]
        own = {k: v for k, v in vars(module).items() if k not in _FRAMEWORK}
        kept += [partial(_refill, v, copy.copy(v)) for v in own.values() if isinstance(v, dict | list | set | deque)]
        kept += [partial(v.copy_, v.clone()) for v in own.values() if isinstance(v, Tensor)]
        kept.append(partial(_reset, module, own))
    try:
        yield
    finally:
        with torch.no_grad():
            for put_back in kept:
                put_back()


_FRAMEWORK = {*vars(nn.Module()), *vars(L.LightningModule())}


def _refill(value: Any, before: Any) -> None:
    value.clear()
    (value.extend if isinstance(value, list | deque) else value.update)(before)


def _reset(module: nn.Module, own: dict[str, Any]) -> None:
    for name in vars(module).keys() - own.keys() - _FRAMEWORK:
        del vars(module)[name]
    vars(module).update(own)


def mean_loss(method: Any, batches: Any) -> float:
    """Mean ``loss`` of the method's :meth:`validate` over batches, weighed by their size, without gradient; the method
    and the generators of chance are left as they were. With several processes it is the mean over all of them.
    """
    was, total, count = method.training, 0.0, 0
    method.eval()
    devices = [method.device] if method.device.type == "cuda" else []
    forward = method.trainer.precision_plugin.forward_context
    with torch.no_grad(), untouched(method), torch.random.fork_rng(devices=devices), forward():
        torch.manual_seed(0)
        for batch in batches:
            batch.pop("skipped", None)
            moved = method.transfer_batch_to_device(batch, method.device, 0)
            loss = mean_over_processes(method.validate(method.on_after_batch_transfer(moved))["loss"])
            total, count = total + float(loss) * len(batch["index"]), count + len(batch["index"])
    method.train(was)
    return total / max(count, 1)
