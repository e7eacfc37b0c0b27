"""One stage of a run under Lightning: the trainer, its callbacks, exact resume."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch

from selftaught.engine.callbacks import Averaged, FiniteGuard, Metrics, OnlineKNN, Progress
from selftaught.engine.checkpoint import Checkpoints, save_atomically
from selftaught.engine.compiling import compile_networks, eagerly, release_networks
from selftaught.engine.loader import DataModule
from selftaught.engine.method import Method
from selftaught.engine.precision import accelerator, lightning_precision
from selftaught.errors import UserError, require
from selftaught.run_settings import Settings

_LOGGERS = {"tensorboard": "TensorBoardLogger", "wandb": "WandbLogger", "mlflow": "MLFlowLogger", "csv": "CSVLogger"}


def quiet_lightning() -> None:
    """Keep Lightning's greetings and tips off the terminal; its errors still come through."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")


def stage_steps(settings: Settings, epoch_batches: int) -> int:
    """Optimiser steps that the settings ask for: ``steps``, else ``epochs`` over the data.

    Raises:
        UserError: neither is given, or the length is not positive.
    """
    steps = settings.steps
    if steps is None:
        if settings.epochs is None:
            raise UserError("how long to train is not given: use --epochs or --steps")
        steps = round(settings.epochs * epoch_batches / settings.accumulate)
        if settings.epochs > 0:
            steps = max(1, steps)
    if steps <= 0:
        raise UserError("--epochs and --steps must be above 0")
    return steps


def make_loggers(settings: Settings, folder: Path) -> list[Any]:
    """Lightning loggers by name; ``none`` for no more than ``metrics.csv``."""
    names = settings.loggers if settings.loggers is not None else ["tensorboard"]
    made = []
    for name in names:
        if name == "none":
            continue
        if name not in _LOGGERS:
            raise UserError(f"--loggers {name}: it may be {', '.join(_LOGGERS)} or none")
        if name in ("wandb", "mlflow"):
            require(name, name)
        kind = getattr(L.pytorch.loggers, _LOGGERS[name])
        if name == "mlflow":
            where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve()}/mlflow.db"
            made.append(kind(experiment_name="selftaught", run_name=folder.name, tracking_uri=where))
        else:
            made.append(kind(save_dir=str(folder), name="", version=name))
    return made


class _Resumable(DataModule):
    """The data module of a run: its place in the stream is saved with the weights."""

    def state_dict(self) -> dict[str, Any]:
        """Batches taken so far."""
        assert self.trainer is not None
        return {"batches": self.trainer.fit_loop.epoch_loop.batch_progress.total.ready}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start after the batches that were taken."""
        self.start_batch = int(state["batches"])


def make_trainer(settings: Settings, folder: Path, total: int, callbacks: list[Any], loggers: list[Any]) -> L.Trainer:
    """The Lightning trainer of a run: one Lightning epoch is the whole stream of batches."""
    device = accelerator(settings.device)
    if settings.device == "gpu" and not torch.cuda.is_available():
        raise UserError("--device gpu: no CUDA device here; use --device cpu")
    return L.Trainer(
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=settings.strategy,
        precision=lightning_precision(settings.precision, device),  # type: ignore[arg-type]
        max_steps=total,
        max_epochs=1,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip or None,
        logger=loggers,
        callbacks=callbacks,
        default_root_dir=str(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        log_every_n_steps=settings.log_every,
        sync_batchnorm=settings.devices * settings.nodes > 1 and device == "cuda",
    )


def fit(
    method: Method,
    source: Any,
    settings: Settings,
    folder: Path,
    *,
    knn: Callable[[Any], float] | None = None,
    title: str = "",
    quiet: bool = False,
) -> dict[str, Any]:
    """Train the method's current stage to its end, from where its last checkpoint left off.

    Args:
        method: the method, its stage already entered.
        source: the training samples.
        settings: the run's settings.
        folder: the run's folder; writes ``checkpoints/STAGE.ckpt``, ``metrics.csv``, ``skipped.csv``.
        knn: scores the method's embedding while it trains.
        title: what the progress bar says.
        quiet: no progress bar.

    Returns:
        steps done, samples skipped, and the averaged weights' state where ``settings.ema`` is set.

    Raises:
        UserError: bad settings, too many unusable samples, a term that became NaN.
        Interrupted: a signal stopped the run; it is saved.
    """
    quiet_lightning()
    checkpoint = folder / "checkpoints" / f"{method.stage}.ckpt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    world = settings.devices * settings.nodes
    data = _Resumable(
        source,
        method,
        batch_size=settings.batch_size,
        workers=settings.workers,
        seed=settings.seed,
        max_skip=settings.max_skip,
        skipped=folder / "skipped.csv",
        view_device=settings.view_device,
    )
    method.epoch_batches = data.epoch_batches(world)
    if method.modality == "image" and method.pixels == "uint8":
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    total = stage_steps(settings, method.epoch_batches)
    data.total_batches = total * settings.accumulate
    metrics = Metrics(folder / "metrics.csv", method.stage, settings.log_every, settings.batch_size)
    progress = Progress(title, total, metrics, quiet)
    saver = Checkpoints(checkpoint, settings.checkpoint_minutes, settings.checkpoint_steps, progress.console.print)
    callbacks: list[Any] = [FiniteGuard(checkpoint), metrics]
    compiled = (
        compile_networks(method, accelerator(settings.device), progress.console.print) if settings.compile else []
    )
    if knn is not None and settings.knn_every > 0:
        callbacks.append(OnlineKNN(eagerly(knn) if compiled else knn, total, settings.knn_every, metrics))
    averaged = Averaged(method, settings.ema) if settings.ema else None
    callbacks += [*([averaged] if averaged else []), progress, saver]
    trainer = make_trainer(settings, folder, total, callbacks, make_loggers(settings, folder))
    if not checkpoint.exists():
        L.seed_everything(settings.seed + 7919 * method.stages.index(method.stage), verbose=False)
    trainer.fit(method, datamodule=data, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=True)
    progress.stop()
    release_networks(compiled)
    problem = save_atomically(trainer, checkpoint)
    if problem:
        raise UserError(f"{folder}: {problem}; free some space and go on with --resume {folder}")
    return {"steps": trainer.global_step, "skipped": len(data.skips.reasons), "averaged": averaged}
