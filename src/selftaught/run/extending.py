"""A finished run trained further: a new folder that begins where the other one ended, and has a longer way to go."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from selftaught import methods
from selftaught._words import typed
from selftaught.engine.checkpoint import epoch_batches, read_checkpoint
from selftaught.engine.fit import stage_steps
from selftaught.errors import UserError
from selftaught.run.configuration import options_of
from selftaught.run.job import build
from selftaught.run.layout import Layout, beside, environment, new_folder, write_json, write_yaml
from selftaught.run_settings import Settings

__all__ = ["extend", "reopen"]

_LEFT_BEHIND = (
    "encoder.*", "report.html", "evaluation.json", "evaluations", "features.npz", "sections.json", "export",
    "state.json", "config.yaml", "*.part", "tensorboard", "*.lock",
)  # fmt: skip


def extend(run: str | Path, *, steps: int | None = None, epochs: float | None = None, out: str | None = None) -> Path:
    """Make the folder of a run that goes on from a finished one's last state; going on with it trains the rest.

    Weights, optimisers, momentum copies, queues, averages and the order of samples go on as they stood; schedules are
    those of the new length, from the step reached. The other run stays as it is.

    Args:
        run: folder of a finished run.
        steps: steps in all, those done included.
        epochs: passes over the data in all, in place of ``steps``.
        out: folder of the new run; None: beside the other, numbered.

    Raises:
        UserError: a run that isn't finished, that stopped early, whose length is no setting of its own, or that is as
            long already.
    """
    layout = Layout(run)
    content, state = layout.read_config(), layout.read_state()
    kind, settings = methods.get(content["method"]), Settings(**content["settings"])
    if (steps is None) == (epochs is None):
        raise UserError(f"--extend {typed(run)}: say how long it is to be in all, with --steps or --epochs")
    if (layout.path / "tasks").is_dir():
        raise UserError(f"{run} is a stream of tasks; add a task with --then")
    method = build(kind, options_of(kind, content["options"], run), content["data"])
    if not method.config.learns:
        raise UserError(f"{run}: {kind.slug} learns nothing with its options, so that more steps change nothing")
    stage = method.stages[-1]
    if stage not in state["stages"]:
        raise UserError(f"{run}: not finished; go on with: selftaught train --resume {typed(run)}")
    if {"steps", "epochs"} & set(method.stage_plan(stage).settings):
        raise UserError(f"{kind.slug} fixes the length of its last stage {stage!r}; --extend can't change it")
    checkpoint = layout.checkpoint(stage)
    if not checkpoint.exists():
        raise UserError(f"{run}: its last checkpoint is gone; start from its weights with --init {typed(run)}")
    saved = read_checkpoint(checkpoint)
    if saved.get("callbacks", {}).get("Best", {}).get("stopped"):
        raise UserError(
            f"{run} stopped early, since nothing was gained any more; start from it with --init {typed(run)}"
        )
    done = int(saved["selftaught"]["steps"])
    settings = dataclasses.replace(settings, steps=steps, epochs=epochs)
    wanted = stage_steps(settings, epoch_batches(saved, checkpoint) if epochs else 1)
    if wanted <= done:
        raise UserError(f"{run} has {done} steps already: ask for more than that in all")

    def fill(folder: Path) -> None:
        shutil.copytree(layout.path, folder, ignore=shutil.ignore_patterns(*_LEFT_BEHIND), dirs_exist_ok=True)
        own, new = dataclasses.replace(settings, steps=wanted, epochs=None, out=str(folder)), Layout(folder)
        write_json(new.state, {"stages": {name: s for name, s in state["stages"].items() if name != stage}})
        reopen(saved, new.checkpoint(stage))
        write_yaml(new.config, content | {"settings": dataclasses.asdict(own), "environment": environment()})

    place = out or str(beside(layout.path, "extended"))
    return new_folder(place, content["method"], content["data"]["name"], fill)


def reopen(saved: dict[str, Any], path: Path) -> None:
    """Write a checkpoint of the end as one of the middle: its one pass over the stream of batches isn't over."""
    loop = saved["loops"]["fit_loop"]
    for place in ("current", "total"):
        progress = loop["epoch_progress"][place]
        progress |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    loop["epoch_loop.batch_progress"]["is_last_batch"] = False
    part = path.with_suffix(".part")
    torch.save(saved, part)
    part.replace(path)
