"""Training a job to its end, stage after stage or task after task, and keeping what a user takes away."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from selftaught import data as data_room
from selftaught.data import Source
from selftaught.data.cache import PACKED
from selftaught.data.kinds import kind_of
from selftaught.engine.callbacks import ONLINE
from selftaught.engine.checkpoint import read_checkpoint
from selftaught.engine.distributed import wait_for_all
from selftaught.engine.fit import fit
from selftaught.engine.method import Method
from selftaught.engine.stages import Stage
from selftaught.errors import UserError
from selftaught.run import configuration, outputs, samples, watching
from selftaught.run.announcing import network_lines
from selftaught.run.applying import write_csv
from selftaught.run.features import embed
from selftaught.run.initialising import interpolate, start_from
from selftaught.run.job import Job, build, curate, teller
from selftaught.run.layout import Layout, file_digest, unusable, write_json, write_tensors, write_yaml
from selftaught.run.ranks import is_first
from selftaught.run.tasks import Task, learn
from selftaught.run_settings import Settings

__all__ = ["deliverable_problem", "of_stage", "save_deliverable", "save_state", "train_job"]

_KNN_BANK, _KNN_TEST = 2000, 1000


def train_job(job: Job) -> Path:
    """Train what is left of a job's stages or tasks; a finished one whose deliverable is damaged is written again.

    Returns:
        The run's folder.

    Raises:
        UserError: a finished stage's state, or the last checkpoint of a damaged run, is gone.
    """
    layout = Layout(job.folder)
    if job.tasks:
        return _learn_tasks(job, layout)
    state = layout.read_state()
    torch.manual_seed(job.settings.seed)
    method = build(job.kind, job.config, job.facts)
    if job.settings.curate:
        curate(method, job.settings.curate)
    method.survey(job.sources)
    begun = bool(state["stages"]) or layout.checkpoint(method.stages[0]).exists()
    if job.settings.init and (job.kind.transforms or not begun):  # what is begun has its weights in its checkpoint
        start_from(method, job.settings.init)
    for line in [*job.plan, *(network_lines(method, job.settings) if job.plan else [])]:
        teller(job.quiet)(line)
    if not method.learns:
        teller(job.quiet)("nothing to learn here: one step shows the loss, then the run is ready to evaluate and apply")
    sources = _cached(job)
    scorer = None
    if job.settings.knn_every > 0 and job.kind.compares:
        parts = samples.labelled_parts(job.data, job.facts["modality"], job.settings)
        scorer = _scorer(parts, job.settings.monitor, teller(job.quiet)) if parts else None
    for number, stage in enumerate(method.stages):
        last = number == len(method.stages) - 1
        place = layout.stage(stage, several=len(method.stages) > 1)
        if stage in state["stages"] and not (last and deliverable_problem(layout)):
            if not last:
                _load_stage(method, place.final)
            continue
        if stage in state["stages"] and not layout.checkpoint(stage).exists():
            raise UserError(f"{deliverable_problem(layout)}, and its last checkpoint is gone; train again")
        if job.finish_now and not (last and layout.checkpoint(stage).exists()):
            where = "has no checkpoint yet" if last else f"is not the last one ({method.stages[-1]})"
            raise UserError(f"--finish-now: {job.folder} stands in stage {stage!r}, which {where}; go on with --resume")
        method.enter_stage(stage)
        began = time.monotonic()
        done = _fit_stage(job, method, sources, stage, place, scorer)
        done["seconds"] = round(done["seconds"] + time.monotonic() - began, 1)
        state["stages"][stage] = done
        if not last:
            save_state(method, place.final)
        share = getattr(job.config, "interpolate", 1.0)
        if last and job.settings.init and share < 1:
            torch.manual_seed(job.settings.seed)  # what a start lacks began at random
            began_as = build(job.kind, job.config, job.facts)
            start_from(began_as, job.settings.init)
            interpolate(method, began_as, share)
        if is_first():
            if place.path != layout.path:
                save_deliverable(place, method, job.facts)
                if rows := unusable(layout.stage(name) for name in state["stages"]):
                    write_csv(layout.skipped, ("name", "reason"), [(row["name"], row["reason"]) for row in rows])
            if last:
                save_deliverable(layout, method, job.facts)
            write_json(layout.state, state)
    wait_for_all()  # the folder is whole in every process
    return job.folder


def _learn_tasks(job: Job, layout: Layout) -> Path:
    """Train a stream of tasks, each a run of its own."""
    say = teller(job.quiet)
    for line in job.plan:
        say(line)

    def build_anew() -> Method:
        torch.manual_seed(job.settings.seed)
        method = build(job.kind, job.config, job.facts)
        method.survey(job.sources)
        if job.settings.init:
            start_from(method, job.settings.init)
        return method

    def fit_task(method: Method, task: Task, place: Layout, number: int, callbacks: list[Any]) -> dict[str, Any]:
        settings = dataclasses.replace(job.settings, then=None, class_tasks=0, continual="none", data=task.name)
        if is_first():
            facts = job.facts | {"samples": len(task.learn), "name": task.name, "task": number}
            write_yaml(place.config, configuration.complete(job.kind.slug, settings, job.config, facts))
        method.enter_stage(method.stages[0])
        began = time.monotonic()
        done = fit(
            method, {method.roles[0]: task.learn}, settings, place.path, title=f"{method.slug} task {number + 1}",
            quiet=job.quiet, callbacks=[*(job.callbacks or []), *callbacks], order=task.order,
            trainer_options=job.trainer,
        )  # fmt: skip
        return done | {"seconds": round(done["seconds"] + time.monotonic() - began, 1)}

    def save(place: Layout, method: Method) -> None:
        if is_first():
            save_deliverable(place, method, job.facts)

    learn(build_anew, fit_task, save, layout, job.tasks, job.settings, say)
    wait_for_all()
    return job.folder


def _fit_stage(
    job: Job, method: Method, sources: dict[str, Source], stage: str, place: Layout, scorer: Any
) -> dict[str, Any]:
    """Train one stage in its folder: an ordinary run with settings of its own."""
    plan, settings, read, held_out = of_stage(job, method, stage, sources)
    several = len(method.stages) > 1
    if several and is_first():
        place.path.mkdir(parents=True, exist_ok=True)
        content = configuration.complete(method.slug, settings, job.config, job.facts | {"stage": stage})
        write_yaml(place.config, content)
    number = method.stages.index(stage)
    title = f"{method.slug} {number + 1}/{len(method.stages)} {stage}" if several else method.slug
    done = fit(
        method, read, settings, place.path, plan=plan, held_out=held_out, scores=scorer, title=title, quiet=job.quiet,
        callbacks=job.callbacks, finish_now=job.finish_now, trainer_options=job.trainer,
    )  # fmt: skip
    if several and is_first():
        write_json(place.state, {"stages": {stage: done}})
    return done


def of_stage(
    job: Job, method: Method, stage: str, sources: dict[str, Source]
) -> tuple[Stage, Settings, dict[str, Source], Source | None]:
    """A stage's plan and settings, the streams that it learns from by role, and the samples that it watches if any."""
    plan = watching.plan_of(method.stage_plan(stage), job.settings)
    settings = stage_settings(job.settings, plan)
    if not method.learns:
        settings = dataclasses.replace(settings, steps=1, epochs=None)
    roles = plan.roles or tuple(role for role in job.kind.roles if role in sources)
    read, held_out = {role: sources[role] for role in roles}, None
    if job.watched is not None:
        held_out = job.watched
    elif plan.watch:
        held_out = sources.get(plan.watch)
        plan = plan if held_out is not None else dataclasses.replace(plan, keep="last", patience=0)
    elif plan.validation and (plan.watches or watching.share_of(settings)):
        first = roles[0]
        read[first], held_out = samples.hold_out(sources[first], plan.validation, settings.seed)
    return plan, settings, read, held_out


def stage_settings(settings: Settings, plan: Stage) -> Settings:
    """The run's settings with those that a stage changes.

    Raises:
        UserError: the plan names a setting that there is not.
    """
    known = {field.name for field in dataclasses.fields(Settings)}
    for name in plan.settings:
        if name not in known:
            raise UserError(f"a stage can't change {name!r}: it is no setting of a run")
    changed = dict(plan.settings)
    if changed.get("epochs") is not None and "steps" not in changed:
        changed["steps"] = None
    return dataclasses.replace(settings, **changed)


def _packed_side(job: Job, kind: str) -> int:
    """Shorter side to pack at, never above the samples' own: what was asked for, else room for crops of the views'
    size; for clips the usual 8/7 of it (256 for 224), as every frame takes room.
    """
    size = getattr(job.config, "image_size", 0)
    usual = round(8 / 7 * (size or 224)) if kind == "clip" else max(256, 2 * size)
    return int(min(job.facts["short_side"], job.settings.cache_side or usual))


def _cached(job: Job) -> dict[str, Source]:
    """The sources, packed into memory-mapped files where that was asked for.

    Raises:
        UserError: none of them holds images or clips, the kinds that are packed.
    """
    if not job.settings.cache:
        if job.settings.cache_side:
            raise UserError(f"--cache-side {job.settings.cache_side} is for --cache: give both, or neither")
        return job.sources
    if all(source.modality not in PACKED for source in job.sources.values()):
        kinds = sorted({kind_of(source.modality).plural for source in job.sources.values()})
        raise UserError(f"--cache packs images and clips; {' and '.join(kinds)} are read as they lie: leave it out")
    folder = data_room.cache_folder() / "packed"
    return {
        role: data_room.pack(source, _packed_side(job, source.modality), folder)
        if source.modality in PACKED
        else source
        for role, source in job.sources.items()
    }


def save_state(method: Method, path: Path) -> None:
    """Write the method's whole state at the end of a stage: what the next one starts from.

    Raises:
        UserError: it can't be written.
    """
    state = method.state_dict()  # a matter of all processes where a method spreads its state over them
    if not is_first():
        return
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{path}: can't be written ({error}); free some space and --resume") from error


def _load_stage(method: Method, path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path} is gone: the run can't go on from a finished stage without it")
    method.load_state_dict(read_checkpoint(path))


def save_deliverable(layout: Layout, method: Method, facts: dict[str, Any]) -> None:
    """Write encoder.safetensors, and beside it how to build and normalise the encoder."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in method.deliverable().state_dict().items()}
    sealed = write_tensors(layout.weights, tensors)
    write_json(layout.card, outputs.of(method.output).card(method, facts) | {"sha256": sealed})


def deliverable_problem(layout: Layout) -> str:
    """What is wrong with what a finished run delivers, naming the file; empty where it is what was written."""
    if not layout.weights.is_file():
        return f"{layout.weights} is missing"
    card = layout.read_card()
    if not card:
        return f"{layout.card} is missing"
    if card.get("sha256") not in (None, file_digest(layout.weights)):
        return f"{layout.weights} is damaged (not what was written)"
    return ""


def _scorer(parts: tuple[Source, Source], monitored: str, say: Callable[[str], None]) -> Any:
    """A function of the method: accuracies of some test samples against some training samples; None without any."""
    from selftaught.evaluation import monitor, monitor_rows

    known, asked, problem = monitor_rows(parts[0].labels, parts[1].labels, bank=_KNN_BANK, test=_KNN_TEST)
    if problem:
        say(f"no scores while training: {problem}")
        return None
    bank, test = parts[0].subset(known), parts[1].subset(asked)

    wanted: dict[str, Literal["knn", "linear"]] = {"knn": "knn", "probe": "linear"}
    if monitored != "both":
        wanted = {column: by for column, by in wanted.items() if by == monitored}

    def score(trained: Method) -> dict[str, float]:
        was = trained.training
        trained.eval()
        with torch.no_grad():
            x, y = embed(trained, bank, workers=0)[:2]
            tx, ty = embed(trained, test, workers=0)[:2]
        trained.train(was)
        if y is None or ty is None:
            return {}
        found = {}
        for column, by in wanted.items():
            accuracy, why = monitor(x, y, tx, ty, by=by)
            if why:
                say(f"no {ONLINE[column]} here: {why}")
            if accuracy is not None:
                found[column] = accuracy
        return found

    return score
