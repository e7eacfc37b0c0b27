"""The Lightning trainer of a run: its options, and what it logs to."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import StrategyRegistry

from selftaught.engine.precision import accelerator, lightning_precision
from selftaught.engine.sharding import FSDP2, sharding_strategy
from selftaught.engine.tensorboard import SparedTensorBoard
from selftaught.errors import UserError, require
from selftaught.run_settings import Settings

__all__ = ["check_trainer", "make_loggers", "make_trainer", "quiet_lightning"]

_UNUSED = "ddp_find_unused_parameters_true"
_LOGGERS = {"tensorboard": "TensorBoardLogger", "wandb": "WandbLogger", "mlflow": "MLFlowLogger", "csv": "CSVLogger"}


def quiet_lightning() -> None:
    """Keep Lightning's greetings and tips off the terminal; its errors still come through."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")


def make_loggers(settings: Settings, folder: Path, say: Callable[[str], Any] = print) -> list[Any]:
    """Lightning loggers by name; ``none`` for no more than ``metrics.csv``. ``say`` tells when a log ends early."""
    names = settings.loggers if settings.loggers is not None else ["tensorboard"]
    made = []
    for name in names:
        if name == "none":
            continue
        if name not in _LOGGERS:
            raise UserError(f"--loggers {name}: it may be {', '.join(_LOGGERS)} or none")
        if name in ("wandb", "mlflow"):
            require(name, name)
        if name == "tensorboard":
            made.append(SparedTensorBoard(say, save_dir=str(folder), name="", version=name))
            continue
        kind = getattr(L.pytorch.loggers, _LOGGERS[name])
        if name == "mlflow":
            where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve()}/mlflow.db"
            made.append(kind(experiment_name="selftaught", run_name=folder.name, tracking_uri=where))
        else:
            made.append(kind(save_dir=str(folder), name="", version=name))
    return made


_INSTEAD = {
    "max_epochs": "epochs", "max_steps": "steps", "gradient_clip_val": "clip", "gradient_clip_algorithm": "clip",
    "accumulate_grad_batches": "accumulate", "precision": "precision", "accelerator": "device", "devices": "devices",
    "num_nodes": "nodes", "strategy": "strategy", "callbacks": "callbacks", "logger": "loggers",
    "log_every_n_steps": "log_every", "default_root_dir": "out", "val_check_interval": "knn_every",
}  # fmt: skip
_FIXED = (
    "enable_checkpointing", "use_distributed_sampler", "limit_train_batches", "limit_val_batches", "overfit_batches",
    "min_epochs", "min_steps", "reload_dataloaders_every_n_epochs", "num_sanity_val_steps", "fast_dev_run",
)  # fmt: skip


def check_trainer(options: dict[str, Any] | None, callbacks: Any = None) -> None:
    """Refuse options of a Lightning trainer that a run has under another name, or that would break its order.

    Raises:
        UserError: it names the option, and what to use; callbacks that are no list of Lightning's.
    """
    given = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    if callbacks is not None and not all(isinstance(one, L.Callback) for one in given):
        raise UserError("callbacks: give a list of lightning.Callback")
    if options is not None and not isinstance(options, dict):
        raise UserError(f"trainer={options!r}: give a dict of options of Lightning's Trainer")
    known = inspect.signature(L.Trainer.__init__).parameters
    for name in options or {}:
        if name in _INSTEAD:
            raise UserError(f"trainer[{name!r}] is an option of the run itself: give {_INSTEAD[name]}=")
        if name in _FIXED:
            raise UserError(f"trainer[{name!r}] would break the run's order or its resuming; leave it out")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise UserError(f"trainer[{name!r}]: Lightning's Trainer has none" + (f": {near[0]}?" if near else ""))


def make_trainer(
    settings: Settings,
    folder: Path,
    callbacks: list[Any],
    loggers: list[Any],
    takes_any: bool = False,
    more: dict[str, Any] | None = None,
) -> L.Trainer:
    """The Lightning trainer of a run: one Lightning epoch is the whole stream of batches.

    ``takes_any``: kinds of samples take turns; a step then leaves weights alone, which several processes must know.
    ``more``: further options of Lightning's trainer, see `check_trainer`.
    """
    device = accelerator(settings.device)
    if settings.device == "gpu" and not torch.cuda.is_available():
        raise UserError("--device gpu: no CUDA device here; use --device cpu")
    processes = settings.devices * settings.nodes
    if device == "cpu" and "fsdp" in settings.strategy and settings.strategy != FSDP2:
        raise UserError(f"--strategy {settings.strategy} spreads a network over GPUs; on a CPU take {FSDP2}")
    known = {"auto", FSDP2, *StrategyRegistry.available_strategies()}
    if settings.strategy not in known:
        raise UserError(f"--strategy {settings.strategy}: it may be auto, {', '.join(sorted(known - {'auto'}))}")
    several = takes_any and processes > 1
    strategy = _UNUSED if several and settings.strategy in ("auto", "ddp") else settings.strategy
    options: dict[str, Any] = {
        "accelerator": {"cuda": "gpu"}.get(device, device),
        "devices": settings.devices,
        "num_nodes": settings.nodes,
        "strategy": sharding_strategy(processes) if strategy == FSDP2 else strategy,
        "precision": lightning_precision(settings.precision, device),
        "max_epochs": 1,
        "logger": loggers,
        "callbacks": callbacks,
        "default_root_dir": str(folder),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "log_every_n_steps": settings.log_every,
        "sync_batchnorm": processes > 1 and device == "cuda",
    }
    return L.Trainer(**options | (more or {}))
