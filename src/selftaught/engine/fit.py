"""One stage of a run under Lightning: the trainer, its callbacks, exact resume."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import StrategyRegistry

from selftaught._words import plural, typed
from selftaught.data.kinds import kind_of
from selftaught.engine.branching import BranchPoint, branch_file
from selftaught.engine.callbacks import FiniteGuard, Metrics, OnlineScores
from selftaught.engine.checkpoint import Checkpoints, read_checkpoint, signals_given_back
from selftaught.engine.checkpointing import keep_activations, recompute_activations
from selftaught.engine.compiling import compile_networks, eagerly, release_networks
from selftaught.engine.distributed import rank
from selftaught.engine.keeping import Averaged, Best, mean_loss
from selftaught.engine.loader import DataModule
from selftaught.engine.memory import freed_memory_kept
from selftaught.engine.method import Method
from selftaught.engine.orders import Order
from selftaught.engine.precision import accelerator, lightning_precision
from selftaught.engine.progress import Progress
from selftaught.engine.sharding import FSDP2, sharding_strategy, whole
from selftaught.engine.stages import Stage
from selftaught.engine.tensorboard import SparedTensorBoard, writers_told
from selftaught.engine.tracking import Tracking
from selftaught.errors import UserError, require
from selftaught.run_settings import Settings

_WITHIN = ("stages", "tasks")
"""Folders of a run whose own folders are runs within it."""
_UNUSED = "ddp_find_unused_parameters_true"
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
        UserError: neither is given.
    """
    if settings.steps is not None:
        return settings.steps
    if settings.epochs is None:
        raise UserError("how long to train is not given: use --epochs or --steps")
    return max(1, round(settings.epochs * epoch_batches / settings.accumulate))


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


def fit(
    method: Method,
    sources: dict[str, Any],
    settings: Settings,
    folder: Path,
    *,
    plan: Stage | None = None,
    held_out: Any = None,
    scores: Callable[[Any], dict[str, float]] | None = None,
    title: str = "",
    quiet: bool = False,
    callbacks: list[Any] | None = None,
    order: Order | None = None,
    finish_now: bool = False,
    trainer_options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train the method's current stage to its end, from where its last checkpoint left off.

    What the checkpoint holds is the state of training; which weights the stage ends with (the last, averaged or best
    ones) is settled after that, so that a run which is killed in between settles it again.

    Args:
        method: the method, its stage already entered; it ends with the stage's weights.
        sources: the training samples by role.
        settings: the stage's settings.
        folder: the stage's folder; writes ``checkpoints/STAGE.ckpt``, ``metrics.csv``, ``skipped.csv``.
        plan: what the stage keeps.
        held_out: samples to watch.
        scores: accuracies of the method's embedding, by name, taken while it trains; see `OnlineScores`.
        title: what the progress bar says.
        quiet: no progress bar.
        callbacks: further Lightning callbacks.
        order: of the first stream's samples; None: the method's own.
        finish_now: end the stage where its last checkpoint stands.
        trainer_options: further options of Lightning's trainer, see `check_trainer`.

    Returns:
        steps done, and samples skipped; where the plan keeps the best weights also of which step they are, and their
        watched loss.

    Raises:
        UserError: bad settings, too many unusable samples, a term that became NaN.
        Interrupted: a signal stopped the run; it is saved.
    """
    quiet_lightning()
    plan = plan or Stage()
    _check_sharded(settings, plan)
    checkpoint = folder / "checkpoints" / f"{method.stage}.ckpt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    data, total, epoch_batches = _planned(method, sources, settings, folder, order)
    metrics = Metrics(folder / "metrics.csv", method.stage, settings.log_every, settings.batch_size)
    progress = Progress(title, total, metrics, quiet)
    saver = Checkpoints(checkpoint, settings.checkpoint_minutes, settings.checkpoint_steps, progress.console.print)
    metrics.warn = progress.console.print
    watching: list[Any] = [FiniteGuard(checkpoint), metrics]
    say = progress.console.print
    if method.reselection is not None:
        method.reselection.say = say
    recomputed = recompute_activations(method) if settings.recompute else []
    compiled = compile_networks(method, accelerator(settings.device), say) if settings.compile else []
    if scores is not None and settings.knn_every > 0:
        online = OnlineScores(eagerly(scores) if compiled else scores, total, settings.knn_every, metrics)
        watching.insert(watching.index(metrics), online)  # before the row of the same step is written
    averaged = Averaged(method, settings.ema) if settings.ema else None
    best = None
    if plan.watches or held_out is not None:
        best = Best(epoch_batches, plan.patience, metrics, _look(held_out, settings, method), plan.watches)
        whole_samples = type(method).watched is not Method.watched  # an error of theirs, no loss
        best.column = "watched" if held_out is None or whole_samples else "val_loss"
        watching.insert(watching.index(metrics), best)  # before the row of the same step is written
    watching += [averaged] if averaged is not None else []
    endless = method.endless
    if endless is not None and method.branch is None:
        watching.append(BranchPoint(branch_file(checkpoint), endless.constant_end, say))
    loggers = make_loggers(settings, folder, say)
    if loggers:
        options = dataclasses.asdict(settings) | dataclasses.asdict(method.config)
        watching.append(Tracking(options, settings.log_every, metrics))
    trainer = make_trainer(
        settings, folder, [*watching, *(callbacks or []), progress, saver], loggers, method.takes_any, trainer_options
    )
    if not checkpoint.exists():
        L.seed_everything(settings.seed + 7919 * method.stages.index(method.stage), verbose=False)
    elif finish_now:
        data.total_batches = int(read_checkpoint(checkpoint)["selftaught"]["batches"])
    elif stopped := _stopped_early(checkpoint):
        data.total_batches = stopped
    method.train()
    with signals_given_back(), writers_told(), freed_memory_kept():
        trainer.fit(method, datamodule=data, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=True)
    progress.stop()
    release_networks(compiled)
    keep_activations(recomputed)
    _save_last(saver, trainer, method, folder)
    whole(method.sharded)
    method.sharded = []
    for chosen in (averaged, best):
        if chosen is not None:
            chosen.copy_to(method)
    skipped = sum(len(skips.reasons) for skips in data.skips.values())
    done: dict[str, Any] = {"steps": method.steps, "seconds": metrics.earlier, "skipped": skipped}
    if best is not None and best.weights:
        done |= {"kept_step": best.step, "kept_loss": best.loss}
        if not quiet:
            say(f"the weights of step {best.step} of {method.steps} are kept, loss {best.loss:.4g}")
    return done


def _planned(
    method: Method, sources: dict[str, Any], settings: Settings, folder: Path, order: Order | None
) -> tuple[DataModule, int, int]:
    """The stage's data, its steps and the batches of an epoch; the method is told of them."""
    data = DataModule(
        sources,
        method,
        batch_size=settings.batch_size,
        workers=settings.workers,
        seed=settings.seed,
        max_skip=settings.max_skip,
        skipped=folder / "skipped.csv",
        view_device=settings.view_device,
        order=order,
    )
    epoch_batches = data.epoch_batches(settings.devices * settings.nodes)
    if kind_of(method.modality).picture and method.pixels == "uint8":
        method.to(memory_format=torch.channels_last)
    total = stage_steps(settings, epoch_batches)
    if method.reselection is not None:
        method.reselection.folder = folder
        if settings.steps is None and method.reselection.options.rescale_epochs:
            total = round(total / method.reselection.options.rho)
    data.total_batches = total * settings.accumulate
    method.plan(total, epoch_batches)
    method.accumulate, method.clip = settings.accumulate, settings.clip
    method.branch = settings.anneal_from if settings.anneal else None
    return data, total, epoch_batches


def _check_sharded(settings: Settings, plan: Stage) -> None:
    """Refuse what a network in shares can't have.

    Raises:
        UserError: it names the option.
    """
    if settings.strategy != FSDP2:
        return
    if settings.devices * settings.nodes < 2:
        raise UserError(f"--strategy {FSDP2} spreads a network over processes: give --devices 2 or more")
    if lightning_precision(settings.precision, accelerator(settings.device)) == "16-mixed":
        raise UserError(f"--strategy {FSDP2} trains in float32 or bf16: give --precision bf16, or take --strategy ddp")
    for given, told in ((settings.ema, "--ema"), (settings.compile, "--compile"), (plan.watches, "keeping the best")):
        if given:
            raise UserError(f"--strategy {FSDP2}: {told} needs the whole network on each process; take --strategy ddp")


def watchable(kind: type[Method], roles: Sequence[str]) -> str:
    """Why a method's loss on held-out samples can't be watched, to go on after its name; "" where it can.

    Args:
        kind: the method's class.
        roles: the streams that it reads.
    """
    own = kind.validate is not Method.validate or kind.watched is not Method.watched
    if kind.unwatchable:
        return kind.unwatchable
    if not own and kind.loss is Method.loss:
        return "has no loss of a batch: its networks move in turns"
    if not own and len(roles) > 1:
        return f"learns from several streams together ({', '.join(roles)})"
    return ""


def _look(held_out: Any, settings: Settings, method: Method) -> Callable[[Any], float] | None:
    """A function of the method: its mean loss on held-out samples, always under the same views; None without any."""
    if held_out is None:
        return None
    if type(method).watched is not Method.watched:
        return lambda trained: float(trained.watched(held_out))
    world = settings.devices * settings.nodes
    rows = min(settings.batch_size, len(held_out) // world)
    if rows < 1 + method.compares:
        raise UserError(f"{plural(len(held_out), 'sample')} held out: too few to watch a loss on; hold out more")
    options: dict[str, Any] = {"batch_size": max(rows, 1), "workers": 0, "seed": 1, "value_range": method.value_range}
    watched = DataModule(held_out, method, **options)

    def look(trained: Any) -> float:
        dataset, rows = watched.batches(method.roles[0]), watched.batch_size
        starts = range(rank() * rows, len(held_out) - rows + 1, rows * world)
        number = len(held_out) // (rows * world)  # as many on every process

        def batches() -> Iterator[dict[str, Any]]:
            for first in starts[:number]:
                batch = dataset[(0, list(range(first, first + rows)))]
                batch["index"] = batch["index"] + trained.samples  # none of those that are learnt from
                yield batch

        return mean_loss(trained, batches())

    return look


def _save_last(saver: Checkpoints, trainer: L.Trainer, method: Method, folder: Path) -> None:
    """Write the state at the end of training, unless the last checkpoint holds it.

    Raises:
        UserError: it can't be written, or a weight is not finite.
    """
    if saver.saved_step == method.steps:
        return
    if saver.path.exists() and int(read_checkpoint(saver.path)["selftaught"]["steps"]) == method.steps:
        return
    if problem := saver.save(trainer):
        saved = saver.path.exists() or method.stage != method.stages[0]
        run = folder.parents[1] if folder.parent.name in _WITHIN else folder
        mend = f"go on with --resume {typed(run)}" if saved else "give the same command again: nothing was saved yet"
        raise UserError(f"{run}: {problem}; free some space, then {mend}")


def _stopped_early(checkpoint: Path) -> int | None:
    """Batches taken, where the run had stopped early when it was saved.

    Raises:
        UserError: the checkpoint is damaged.
    """
    content = read_checkpoint(checkpoint)
    if "selftaught" not in content or "state_dict" not in content:
        raise UserError(f"{checkpoint}: not a checkpoint of a run; take it from a copy of the run, or train again")
    best = content.get("callbacks", {}).get("Best", {})
    return int(content["selftaught"]["batches"]) if best.get("stopped") else None
