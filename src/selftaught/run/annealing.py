"""A model to use now, out of a run that could go on for ever: a branch of its constant phase, annealed beside it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from selftaught import methods
from selftaught.engine.branching import branch_file
from selftaught.engine.checkpoint import epoch_batches, read_checkpoint
from selftaught.engine.fit import stage_steps
from selftaught.engine.schedules import ENDLESS, InfiniteSchedule, endless
from selftaught.engine.stages import Stage
from selftaught.errors import UserError
from selftaught.run.extending import reopen
from selftaught.run.job import build
from selftaught.run.layout import Layout, beside, environment, new_folder, write_json, write_yaml
from selftaught.run.stages import stage_settings
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
        UserError: another schedule, a stage before the last, or one whose length is the method's own, a state outside
            the constant phase.
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
    stages = _stages(kind, config, content["data"], layout)
    stage = list(stages)[-1]
    last = layout.checkpoint(stage)
    source = branch_file(last) if branch_file(last).exists() else last
    if not source.exists():
        raise UserError(f"{run}: no checkpoint to branch off from yet")
    saved = read_checkpoint(source)
    done, plan = int(saved["selftaught"]["steps"]), stage_settings(settings, stages[stage])
    total = stage_steps(plan, 1 if plan.steps else epoch_batches(saved, source))
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
        several = len(stages) > 1
        for done_stage in list(stages)[:-1]:
            there = new.stage(done_stage).final
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(layout.stage(done_stage).final, there)
        checkpoint = new.stage(stage, several).path / "checkpoints" / f"{stage}.ckpt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        reopen(saved, checkpoint)
        if several:
            write_json(new.state, {"stages": _before(layout, stage)})
        write_yaml(new.config, content | {"settings": dataclasses.asdict(own), "environment": environment()})

    place = out or str(beside(layout.path, f"annealed-{done}"))
    return new_folder(place, content["method"], content["data"]["name"], fill)


def _usual(schedule: InfiniteSchedule, done: int) -> int:
    own = schedule.total - schedule.constant_end
    return own if own and done == schedule.constant_end else max(1, round(_DEFAULT * done))


def _stages(kind: Any, config: Any, facts: dict[str, Any], layout: Layout) -> dict[str, Stage]:
    """The run's stages and their plans; where there are several, all but the last are done.

    Raises:
        UserError: it stands in an earlier one, or the last one's length is an option of the method.
    """
    if not (layout.path / "stages").is_dir():
        return {kind.stages[-1]: Stage()}
    method = build(kind, config, facts)
    found = {stage: method.stage_plan(stage) for stage in method.stages}
    *before, last = found
    if missing := [stage for stage in before if stage not in _before(layout, last)]:
        raise UserError(
            f"{layout.path} stands in its stage {missing[0]!r}: only the last one, {last!r}, can be annealed"
        )
    if {"steps", "epochs"} & found[last].settings.keys():
        raise UserError(f"{kind.slug} gives its last stage a length of its own: --anneal can't lengthen it")
    return found


def _before(layout: Layout, last: str) -> dict[str, Any]:
    """What is stored of the stages before the last."""
    return {stage: done for stage, done in layout.read_state()["stages"].items() if stage != last}
