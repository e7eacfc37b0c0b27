"""A model to use now, out of a run that could go on for ever: a branch of its constant phase, annealed beside it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from selftaught import methods
from selftaught.engine.branching import branch_file
from selftaught.engine.fit import stage_steps
from selftaught.engine.schedules import ENDLESS, InfiniteSchedule, endless
from selftaught.errors import UserError
from selftaught.run.layout import Layout, beside, environment, new_folder, write_yaml
from selftaught.run_settings import Settings

__all__ = ["branch_off"]

_DEFAULT = 0.1
"""Length of a branch in steps done so far, where neither the call nor the run says one."""


def branch_off(run: str | Path, steps: int | None = None, out: str | None = None) -> Path:
    """Make the folder of a run that anneals another one's state; going on with it trains the branch.

    The state is that of the branch point where the run came to its end, else its last checkpoint. The run itself stays
    as it is, and can go on.

    Args:
        run: its folder, finished or interrupted; trained with ``--schedule infinite`` or ``wsd``.
        steps: length of the branch; None: as long as the run's own annealing, or a tenth of the steps done.
        out: folder of the new run; None: beside the run, with "annealed" and the step.

    Raises:
        UserError: another schedule, a method with stages, a state outside the constant phase.
    """
    layout = Layout(run)
    content = layout.read_config()
    kind, settings = methods.get(content["method"]), Settings(**content["settings"])
    config = kind.config_class(**content["options"])
    if (layout.path / "tasks").is_dir():
        raise UserError(f"{run} is a stream of tasks: name one of {layout.path / 'tasks'}")
    if config.schedule not in ENDLESS:
        raise UserError(
            f"{run} was trained with --schedule {config.schedule}: only infinite and wsd can be annealed from"
        )
    if len(kind.stages) > 1:
        raise UserError(f"{kind.slug} trains in stages: --anneal goes with methods of one")
    stage = kind.stages[-1]
    last = layout.checkpoint(stage)
    source = branch_file(last) if branch_file(last).exists() else last
    if not source.exists():
        raise UserError(f"{run}: no checkpoint to branch off from yet")
    counted = torch.load(source, map_location="cpu", weights_only=True, mmap=True)["selftaught"]
    done = int(counted["steps"])
    total = stage_steps(settings, int(counted["epoch_batches"]))
    schedule = endless(config, total, task=int(content["data"].get("task", 0)))
    if not schedule.cooldown_end <= done <= schedule.constant_end:
        raise UserError(
            f"{run} stands at step {done}: only the constant phase, steps {schedule.cooldown_end} to "
            f"{schedule.constant_end}, can be annealed from"
        )
    length = steps or _usual(schedule, done)
    changed: dict[str, Any] = {"steps": done + length, "anneal": str(run), "anneal_from": done, "epochs": None}

    def fill(folder: Path) -> None:
        new, own = Layout(folder), dataclasses.replace(settings, out=str(folder), **changed)
        checkpoint = new.checkpoint(stage)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, checkpoint)
        write_yaml(new.config, content | {"settings": dataclasses.asdict(own), "environment": environment()})

    place = out or str(beside(layout.path, f"annealed-{done}"))
    return new_folder(place, content["method"], content["data"]["name"], fill)


def _usual(schedule: InfiniteSchedule, done: int) -> int:
    own = schedule.total - schedule.constant_end
    return own if own and done == schedule.constant_end else max(1, round(_DEFAULT * done))
