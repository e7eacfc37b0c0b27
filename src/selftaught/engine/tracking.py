"""What TensorBoard and other loggers get besides the loss terms: options, rate, throughput, gradients, the views."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from selftaught.engine.callbacks import Metrics
from selftaught.engine.tensorboard import SparedTensorBoard

__all__ = ["Tracking"]

_SHOWN = 8


class Tracking(Callback):
    """Learning rates, samples per second and gradient norms every few steps; once the options and some views.

    Draws no random number and changes nothing of the training.

    Args:
        options: settings and options of the run, by name.
        every: optimiser steps between values.
        metrics: measures the throughput; it stands before this one among the callbacks, with the same ``every``.
    """

    def __init__(self, options: dict[str, Any], every: int, metrics: Metrics) -> None:
        self.options, self.every, self.metrics, self._step = options, every, metrics, 0
        self._norms: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """The options."""
        self._step = module.steps
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in self.options.items()}
        for logger in trainer.loggers:
            logger.log_hyperparams(plain)

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """The views of a few samples of the first batch, side by side."""
        if batch_idx == 0 and module.steps == 0 and trainer.is_global_zero:
            rows = view_rows(batch, module.pixel_mean, module.pixel_std, module.pixels == "float32")
            for logger in trainer.loggers:
                if rows is not None and isinstance(logger, SparedTensorBoard):
                    logger.add_image("views", rows.numpy(), 0)

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        """The norm of an optimiser's gradient, before it is clipped, and the learning rate of the step."""
        if (module.steps + 1) % self.every:
            return
        place = next((k for k, own in enumerate(trainer.optimizers) if own is optimizer), 0)
        name = "" if len(trainer.optimizers) == 1 else f"/{list(module._places)[place]}"
        self._norms[f"lr{name}"] = float(optimizer.param_groups[0]["lr"])
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradients:
            self._norms[f"gradient_norm{name}"] = float(torch.linalg.vector_norm(torch.stack(_norms(gradients))))

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log what there is at the steps that are due."""
        if module.steps == self._step or module.steps % self.every:
            self._step = module.steps
            return
        self._step = module.steps
        values = {"samples_per_second": float(self.metrics.last["per_second"])} | self._norms
        for logger in trainer.loggers:
            logger.log_metrics(values, step=module.steps)
        self._norms = {}


def _norms(gradients: list[Tensor]) -> list[Tensor]:
    return [torch.linalg.vector_norm(gradient.detach().float()) for gradient in gradients]


def view_rows(batch: Any, mean: Tensor, std: Tensor, plain: bool) -> Tensor | None:
    """The views of the first samples as one picture (3, H, W) in [0, 1]: a row for every view; None without images."""
    given = batch.get("views") if isinstance(batch, dict) else None
    shown = [view for view in given or [] if isinstance(view, Tensor) and view.dim() == 4]
    if not shown:
        return None
    side = (min(view.shape[2] for view in shown), min(view.shape[3] for view in shown))
    rows = []
    for view in shown:
        x = view[:_SHOWN].detach().float().cpu()
        if not plain:
            x = x * std.cpu().view(1, -1, 1, 1) + mean.cpu().view(1, -1, 1, 1)
        x = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
        x = torch.nn.functional.interpolate(x, side, mode="bilinear", antialias=True) if x.shape[2:] != side else x
        rows.append(torch.cat(list(x.clamp(0, 1)), dim=2))
    return torch.cat(rows, dim=1)
