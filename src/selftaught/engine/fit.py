"""One stage of a run under Lightning: its data, its callbacks, exact resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

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
from selftaught.engine.sharding import FSDP2, whole
from selftaught.engine.stages import Stage
from selftaught.engine.tensorboard import writers_told
from selftaught.engine.tracking import Tracking
from selftaught.engine.trainer import make_loggers, make_trainer, quiet_lightning
from selftaught.errors import UserError
from selftaught.run_settings import Settings

_WITHIN = ("stages", "tasks")
"""Folders of a run whose own folders are runs within it."""


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
    say = metrics.warn = progress.console.print
    saver = Checkpoints(checkpoint, settings.checkpoint_minutes, settings.checkpoint_steps, say)
    if method.reselection is not None:
        method.reselection.say = say
    recomputed = recompute_activations(method) if settings.recompute else []
    compiled = compile_networks(method, accelerator(settings.device), say) if settings.compile else []
    looks: list[Any] = []  # before the row of the same step is written
    if scores is not None and settings.knn_every > 0:
        looks.append(OnlineScores(eagerly(scores) if compiled else scores, total, settings.knn_every, metrics))
    best = None
    if plan.watches or held_out is not None:
        best = Best(epoch_batches, plan.patience, metrics, _look(held_out, settings, method), plan.watches)
        whole_samples = type(method).watched is not Method.watched  # an error of theirs, no loss
        best.column = "watched" if held_out is None or whole_samples else "val_loss"
        looks.append(best)
    averaged = Averaged(method, settings.ema) if settings.ema else None
    loggers = make_loggers(settings, folder, say)
    watching = [FiniteGuard(checkpoint), *looks, metrics, *([] if averaged is None else [averaged])]
    watching += _told_of_steps(method, settings, checkpoint, metrics if loggers else None, say)
    trainer = make_trainer(
        settings, folder, [*watching, *(callbacks or []), progress, saver], loggers, method.takes_any, trainer_options
    )
    _begin(method, settings.seed, data, checkpoint, finish_now)
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


def _told_of_steps(
    method: Method, settings: Settings, checkpoint: Path, logged: Metrics | None, say: Callable[[str], Any]
) -> list[Any]:
    """Callbacks that change nothing: where a learning rate without end can be annealed from, what loggers are told."""
    found: list[Any] = []
    if method.endless is not None and method.branch is None:
        found.append(BranchPoint(branch_file(checkpoint), method.endless.constant_end, say))
    if logged is not None:
        options = dataclasses.asdict(settings) | dataclasses.asdict(method.config)
        found.append(Tracking(options, settings.log_every, logged))
    return found


def _begin(method: Method, seed: int, data: DataModule, checkpoint: Path, finish_now: bool) -> None:
    """Seed a stage that begins; of one that goes on, end the data where it was to end, or had stopped early."""
    if not checkpoint.exists():
        L.seed_everything(seed + 7919 * method.stages.index(method.stage), verbose=False)
    elif finish_now:
        data.total_batches = int(read_checkpoint(checkpoint)["selftaught"]["batches"])
    elif stopped := _stopped_early(checkpoint):
        data.total_batches = stopped


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
