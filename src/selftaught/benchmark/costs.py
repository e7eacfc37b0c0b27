"""What a method costs: seconds and memory of a training step, views of a sample, measured in a short run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from selftaught.errors import UserError

_WARM = 3
"""Steps before the clock starts: first allocations, the loader's first batches."""


class _Meter(L.Callback):
    """Times the steps of a run's last stage after the first ones, and adds up the memory of one of them."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.saved: dict[int, int] = {}
        self.views = 1
        self._hooks: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget an earlier stage."""
        self.moments, self.saved = [], {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, index: int) -> None:
        """In the first step, keep account of what autograd keeps."""
        if index == 0:
            found = batch.get("views") if isinstance(batch, Mapping) else None
            self.views = len(found) if isinstance(found, list) else 1
            self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda x: x)
            self._hooks.__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
        """Note the time."""
        if self._hooks is not None:
            self._hooks.__exit__(None, None, None)
            self._hooks = None
        self.moments.append(time.monotonic())

    def _keep(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        self.saved[storage.data_ptr()] = storage.nbytes()
        return x


def measure(method: str, data: str, options: Mapping[str, Any], steps: int = 10) -> dict[str, float]:
    """Train a method for some steps in a folder that is thrown away, and look at what a step takes.

    Args:
        method: slug.
        data: source.
        options: of the run, without steps.
        steps: how many; more than 4.

    Returns:
        ``seconds`` of a step (the median, data included), ``megabytes`` of a step (weights, gradients, AdamW's two
        moments, and what autograd keeps for the backward pass; the same on every machine), ``views`` of a sample,
        ``parameters`` that are trained, ``encoder`` parameters of what is delivered.

    Raises:
        UserError: too few steps; as training raises it.
    """
    from selftaught.run import load
    from selftaught.run.training import start

    if steps <= _WARM + 1:
        raise UserError(f"steps={steps}: a cost needs {_WARM + 2} steps or more")
    meter = _Meter()
    settings: dict[str, Any] = {"knn_every": 0, "loggers": ["none"]} | dict(options) | {"steps": steps}
    settings.pop("epochs", None)
    with tempfile.TemporaryDirectory(prefix="cost-") as folder:
        start(method, data, quiet=True, out=str(Path(folder) / "run"), callbacks=[meter], **settings)
        trained: nn.Module = load(Path(folder) / "run").method
    gaps = sorted(b - a for a, b in zip(meter.moments[_WARM:-1], meter.moments[_WARM + 1 :], strict=True))
    learnt = [p.numel() * p.element_size() for p in trained.parameters() if p.requires_grad]
    rest = [t.numel() * t.element_size() for t in (*trained.buffers(), *_fixed(trained))]
    weights: Any = trained
    return {
        "seconds": gaps[len(gaps) // 2],
        "megabytes": (4 * sum(learnt) + sum(rest) + sum(meter.saved.values())) / 2**20,
        "views": float(meter.views),
        "parameters": float(sum(p.numel() for p in trained.parameters() if p.requires_grad)),
        "encoder": float(sum(p.numel() for p in weights.deliverable().parameters())),
    }


def _fixed(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if not p.requires_grad]
