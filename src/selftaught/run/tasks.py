"""Streams of tasks: one model learns data sets one after another, and is asked after each what it still knows.

    selftaught train mae --data a/ --then b/ --then c/ --schedule infinite
    selftaught train mae --data cifar10/ --class-tasks 5 --continual er --memory 0.1

Every task is an ordinary run in ``tasks/N``. With an endless schedule the next one begins at the last one's branch
point (the end of its constant phase), not from its annealed model; with any other where the last one ended.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selftaught._words import plural, typed
from selftaught.data import Source
from selftaught.data.combining import Concat
from selftaught.engine.branching import KeptOptimiser, branch_file
from selftaught.engine.method import Method
from selftaught.engine.orders import Alternating, Order
from selftaught.errors import UserError
from selftaught.evaluation.continual import continual
from selftaught.evaluation.linear import linear
from selftaught.run import samples
from selftaught.run.applying import write_csv
from selftaught.run.features import embed
from selftaught.run.layout import Layout, read_json, write_json, write_text
from selftaught.run_settings import Settings

__all__ = ["Task", "judge", "open_tasks", "start_of", "write_table"]

_PROBE, _TEST = 4000, 2000
"""Samples of a task that its probe learns from and is tested on, at most."""


@dataclass
class Task:
    """One task of a stream.

    Attributes:
        name: of its data.
        own: its training samples.
        learn: what the model learns from: its samples, with a memory of earlier ones or that memory alone.
        order: of ``learn``; None shuffles.
        parts: (train, test) with labels to judge on; None where there are none.
        fresh: begin with new weights.
    """

    name: str
    own: Source
    learn: Source
    order: Order | None = None
    parts: tuple[Source, Source] | None = None
    fresh: bool = False


def asked(settings: Settings) -> bool:
    """Whether the run is a stream of tasks."""
    return bool(settings.then) or settings.class_tasks > 1


def open_tasks(kind: type[Method], data: Any, first: Source, settings: Settings) -> list[Task]:
    """The tasks of a run; none where it isn't a stream of tasks.

    Raises:
        UserError: a method that can't learn in tasks, too few classes, data of another kind, a memory of nothing.
    """
    if not asked(settings):
        if settings.continual != "none":
            raise UserError(f"--continual {settings.continual} goes with several tasks: give --then or --class-tasks")
        return []
    if len(kind.stages) > 1 or len(kind.roles) > 1 or kind.needs_labels or kind.transforms:
        raise UserError(
            f"{kind.slug} can't learn a stream of tasks: it has stages, several streams, or learns from labels"
        )
    if settings.curate:
        raise UserError("--curate chooses samples of one set: it doesn't go with a stream of tasks")
    found = _by_class(data, first, settings) if settings.class_tasks > 1 else _by_source(data, first, settings)
    for task in found[1:]:
        if task.own.channels != found[0].own.channels and None not in (task.own.channels, found[0].own.channels):
            raise UserError(f"{task.name} has {task.own.channels} channels, {found[0].name} {found[0].own.channels}")
    return _with_memory(found, settings)


def _by_source(data: Any, first: Source, settings: Settings) -> list[Task]:
    """A task for each of the sources."""
    found = [Task(first.name, first, first, parts=samples.labelled_parts(data, first.modality, settings))]
    for spec in settings.then or []:
        source = samples.training_source(spec, first.modality, settings)
        parts = samples.labelled_parts(spec, first.modality, settings)
        found.append(Task(source.name, source, source, parts=parts))
    return found


def _by_class(data: Any, first: Source, settings: Settings) -> list[Task]:
    """A task for each group of classes."""
    if settings.then:
        raise UserError("--class-tasks divides one set: leave out --then")
    parts = samples.labelled_parts(data, first.modality, settings)
    if first.labels is None or parts is None:
        raise UserError(f"{first.name} has no labels: --class-tasks divides a set by its classes")
    known = np.unique(first.labels[first.labels >= 0])
    if len(known) < settings.class_tasks:
        raise UserError(f"--class-tasks {settings.class_tasks}: {first.name} has {len(known)} classes")
    found = []
    for group in np.array_split(known, settings.class_tasks):
        named = [first.classes[k] if first.classes else str(k) for k in group]
        own, train, test = (_of_classes(source, group) for source in (first, *parts))
        found.append(Task(", ".join(named), own, own, parts=(train, test)))
    return found


def _of_classes(source: Source, classes: np.ndarray) -> Source:
    return source.subset(np.flatnonzero(np.isin(np.asarray(source.labels), classes)))


# ---- memory ----------------------------------------------------------------------------------------------------------
def _with_memory(tasks: list[Task], settings: Settings) -> list[Task]:
    """What each task learns from under the run's way to learn continually."""
    if settings.continual == "none":
        return tasks
    if settings.continual == "joint":
        return [Task("all at once", joined := Concat([t.own for t in tasks]), joined, parts=_joint_parts(tasks))]
    if settings.memory <= 0:
        raise UserError(f"--memory {settings.memory:g}: {settings.continual} needs some of every past task")
    rng = np.random.default_rng([settings.seed, 4711])
    kept: list[Source] = []
    for number, task in enumerate(tasks):
        chosen = _chosen(task.own, settings.memory, rng)
        if settings.continual == "gdumb":
            kept.append(chosen)
            task.learn, task.fresh = Concat(list(kept)) if len(kept) > 1 else chosen, True
            continue
        if number:
            memory = Concat(list(kept)) if len(kept) > 1 else kept[0]
            task.learn, task.order = Concat([task.own, memory]), Alternating(len(task.own), len(memory))
        kept.append(chosen)
    return tasks


def _chosen(source: Source, share: float, rng: np.random.Generator) -> Source:
    """A share of a task to remember, as much of every class where there are labels; at least one sample."""
    count = max(1, round(share * len(source)))
    order = rng.permutation(len(source))
    if source.labels is not None:
        labels = np.asarray(source.labels)[order]
        place = np.zeros(len(order), dtype=np.int64)  # how many of its class come before a sample
        for k in np.unique(labels):
            place[labels == k] = np.arange(int((labels == k).sum()))
        order = order[np.argsort(place, kind="stable")]
    return source.subset(np.sort(order[:count]))


def _joint_parts(tasks: list[Task]) -> tuple[Source, Source] | None:
    known = [task.parts for task in tasks if task.parts is not None]
    if len(known) < len(tasks):
        return None
    return Concat([train for train, _ in known]), Concat([test for _, test in known])


# ---- from one task to the next ---------------------------------------------------------------------------------------
def start_of(method: Method, layout: Layout, number: int, tasks: list[Task], keep_optimiser: bool) -> list[Any]:
    """Put the method where task ``number`` begins; returns the callbacks that this takes.

    The weights are those of the last task's branch point with an endless schedule, else its last ones.

    Raises:
        UserError: the last task's checkpoint is gone.
    """
    method.task = number
    if not number or tasks[number].fresh:
        return []
    before = Layout(layout.path / "tasks" / str(number)).checkpoint(method.stage)
    branch = branch_file(before)
    path = branch if method.config.schedule in ("infinite", "wsd") and branch.exists() else before
    if not path.exists():
        raise UserError(f"{path} is gone: task {number + 1} begins with it")
    content = torch.load(path, map_location="cpu", weights_only=True)
    method.load_state_dict(content["state_dict"])
    method.begin_task(tasks[number - 1].own)
    begun = task_folder(layout.path, number).checkpoint(method.stage).exists()  # its own moments are in there
    return [KeptOptimiser(path)] if keep_optimiser and not begun else []


# ---- what is still known ---------------------------------------------------------------------------------------------
def judge(method: Method, tasks: list[Task], number: int, together: bool) -> dict[str, list[float | None]]:
    """Accuracy of a linear probe, and the loss, on every task so far.

    Args:
        method: as task ``number`` left it.
        tasks: of the stream.
        number: of the last task that was learnt.
        together: the tasks' classes are of one set: one probe for all classes seen so far; else a probe for each task.
    """
    seen = tasks[: number + 1]
    accuracy: list[float | None] = [None] * len(seen)
    if all(task.parts is not None for task in seen):
        method.eval()
        found = [_features(method, task.parts) for task in seen if task.parts is not None]
        accuracy = [*_probe(found)] if together else [a for one in found for a in _probe([one])]
    return {"accuracy": accuracy, "loss": [_loss(method, task.own) for task in seen]}


Features = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _features(method: Method, parts: tuple[Source, Source]) -> Features:
    found: list[np.ndarray] = []
    for part, most in zip(parts, (_PROBE, _TEST), strict=True):
        some = part.subset(np.linspace(0, len(part) - 1, min(most, len(part))).astype(np.int64))
        with torch.no_grad():
            x, y, _ = embed(method, some, workers=0)
        assert y is not None
        found += [x, y]
    return found[0], found[1], found[2], found[3]


def _probe(tasks: list[Features]) -> list[float]:
    """Accuracy on each task's test samples of one linear probe over the classes of all."""
    x, y = (np.concatenate([task[k] for task in tasks]) for k in (0, 1))
    if len(np.unique(y)) < 2:
        return [1.0 for _ in tasks]
    return [float(linear(x, y, task[2], task[3], strengths=[0.01])["accuracy"].mean) for task in tasks]


def _loss(method: Method, source: Source) -> float:
    """The method's loss on at most 256 training samples of a task, always under the same views."""
    from selftaught.engine.loader import DataModule

    some = source.subset(np.linspace(0, len(source) - 1, min(256, len(source))).astype(np.int64))
    rows = min(64, len(some))
    batches = DataModule(some, method, batch_size=rows, workers=0, seed=1).batches(method.roles[0])
    total, device = [], method.device
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for first in range(0, len(some) - rows + 1, rows):
            batch: dict[str, Any] = batches[(0, list(range(first, first + rows)))]
            batch.pop("skipped", None)
            moved = method.transfer_batch_to_device(batch, device, 0)
            total.append(float(method.validate(method.on_after_batch_transfer(moved))["loss"]))
    return float(np.mean(total))


def write_table(layout: Layout, tasks: list[Task], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write forgetting.csv (a row per task learnt and task judged) and forgetting.json (with the summary)."""
    table = [
        (tasks[number].name, tasks[i].name, "" if accuracy is None else f"{accuracy:.4f}", f"{loss:.5f}")
        for number, row in enumerate(rows)
        for i, (accuracy, loss) in enumerate(zip(row["accuracy"], row["loss"], strict=True))
    ]
    write_csv(layout.path / "forgetting.csv", ("after", "on", "accuracy", "loss"), table)
    found: dict[str, Any] = {"tasks": [task.name for task in tasks], "rows": rows}
    if rows and all(a is not None for row in rows for a in row["accuracy"]):
        found["summary"] = continual([row["accuracy"] for row in rows])
    if rows:
        losses = [row["loss"] for row in rows]
        earlier = range(len(losses) - 1)
        rises = [losses[-1][i] - losses[i][i] for i in earlier]
        found["loss_increase"] = float(np.mean(rises)) if rises else 0.0
    write_json(layout.path / "forgetting.json", found)
    return found


def numbers(layout: Layout) -> dict[str, float]:
    """What a stream of tasks left, the larger the better but for the loss on the last task.

    Returns:
        ``loss_kept``: minus the mean rise of the loss on earlier tasks since they were learnt; ``loss_last``: the loss
        on the last task; with labels ``average`` (of the accuracies after the last task), ``backward_transfer`` and
        ``accuracy_kept`` (minus the forgetting).

    Raises:
        UserError: the run is no finished stream of tasks.
    """
    path = layout.path / "forgetting.json"
    if not path.exists():
        raise UserError(f"{layout.path}: no stream of tasks, or not finished: there is no forgetting.json")
    found = read_json(path, f"delete it and write it again with: selftaught train --resume {typed(layout.path)}")
    summary = found.get("summary", {})
    known = {key: float(summary[key]) for key in ("average", "backward_transfer") if key in summary}
    kept = {"accuracy_kept": -float(summary["forgetting"])} if summary else {}
    return known | kept | {"loss_kept": -found["loss_increase"], "loss_last": found["rows"][-1]["loss"][-1]}


def say_table(found: dict[str, Any], say: Callable[[str], None]) -> None:
    """The table for the terminal: after each task, accuracy (or loss) on each."""
    known = "summary" in found
    key = "accuracy" if known else "loss"
    for name, row in zip(found["tasks"], found["rows"], strict=False):
        say(f"after {name}: {key} on each task " + ", ".join(f"{value:.3f}" for value in row[key]))
    if known:
        numbers = found["summary"]
        say(f"average accuracy {numbers['average']:.3f}, forgetting {numbers['forgetting']:.3f}")


def task_folder(folder: Path, number: int) -> Layout:
    """The run of task ``number`` (from 0) of a stream of tasks."""
    return Layout(folder / "tasks" / str(number + 1))


def facts_of(tasks: list[Task]) -> list[dict[str, Any]]:
    """What a run records of its tasks, to know them again when it goes on."""
    return [{"name": t.name, "samples": len(t.learn), "fingerprint": t.own.fingerprint()} for t in tasks]


def same_tasks(tasks: list[Task], known: list[dict[str, Any]]) -> None:
    """Refuse to go on with other tasks than the run began with.

    Raises:
        UserError: it names the task.
    """
    found = facts_of(tasks)
    for number, (now, then) in enumerate(zip(found, known, strict=False), start=1):
        if now != then:
            raise UserError(f"task {number}, {now['name']}: not the samples that the run began with; start a new run")
    if len(found) != len(known):
        raise UserError(f"{len(found)} tasks, {len(known)} when the run began; start a new run")


def learn(
    build: Callable[[], Method],
    fit_task: Callable[[Method, Task, Layout, int, list[Any]], dict[str, Any]],
    save: Callable[[Layout, Method], None],
    layout: Layout,
    tasks: list[Task],
    settings: Settings,
    say: Callable[[str], None],
) -> None:
    """Learn the tasks one after another, from where that was left off, and keep what is known after each.

    Args:
        build: makes the method with its first weights.
        fit_task: trains a method on a task in its folder, ``(method, task, folder, number, callbacks)``.
        save: writes what a method delivers into a folder.
        layout: of the whole run.
        tasks: of the stream.
        settings: of the run.
        say: called with lines for the terminal.
    """
    state, method = layout.read_state(), build()
    rows: list[dict[str, Any]] = state.setdefault("tasks", [])
    for number in range(len(rows), len(tasks)):
        task, place = tasks[number], task_folder(layout.path, number)
        method = build()
        callbacks = start_of(method, layout, number, tasks, settings.keep_optimizer)
        say(f"task {number + 1} of {len(tasks)}: {task.name}, {plural(len(task.learn), 'sample')}")
        done = fit_task(method, task, place, number, callbacks)
        save(place, method)
        rows.append(judge(method, tasks, number, settings.class_tasks > 1) | done)
        if number == len(tasks) - 1:
            save(layout, method)
        write_json(layout.state, {"stages": {}, "tasks": rows})
    say_table(write_table(layout, tasks, rows), say)
    _join_metrics(layout, len(tasks))
    whole = {key: sum(row[key] for row in rows) for key in ("steps", "skipped", "seconds")}
    write_json(layout.state, {"stages": {method.stage: whole}, "tasks": rows})


def _join_metrics(layout: Layout, tasks: int) -> None:
    """One metrics.csv for the whole stream, each task a stage of its own."""
    rows: list[dict[str, str]] = []
    for number in range(tasks):
        path = task_folder(layout.path, number).metrics
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows += [row | {"stage": f"task {number + 1}"} for row in csv.DictReader(file)]
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), restval="")
    table.writeheader()
    table.writerows(rows)
    write_text(layout.metrics, text.getvalue())
