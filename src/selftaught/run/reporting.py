"""What a run has to show, gathered into the plain sections that the report room draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from selftaught import catalog, methods, report
from selftaught._words import typed
from selftaught.data import Source, open_source
from selftaught.data.kinds import kind_of
from selftaught.engine.callbacks import ONLINE
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.run.evaluations import Evaluation
from selftaught.run.layout import Layout, read_rows, unusable
from selftaught.run.outputs._base import Page
from selftaught.run.samples import training_source
from selftaught.run_settings import Settings


def sections(layout: Layout, lead: Evaluation, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """The sections of one run that need no samples, as :class:`selftaught.report.schema.Run` describes them.

    Args:
        layout: of the run.
        lead: the evaluation that the page is about.
        evaluations: all that there are; those on other data than ``lead`` are listed with its name.
    """
    config, state = layout.read_config(), layout.read_state()
    card, facts = catalog.card(config["method"]), config["data"]
    seconds = sum(stage.get("seconds", 0.0) for stage in state["stages"].values())
    places = [layout, *(layout.stage(name) for name in state["stages"])]
    skipped = unusable(places)
    usable = facts["samples"] - len(skipped)
    found: dict[str, Any] = {
        "title": f"{card.title} on {facts['name']}" + _judged_on(lead, evaluations),
        "method": config["method"],
        "method_title": card.title,
        "labels_seen": methods.get(config["method"]).needs_labels,
        "paper": {
            "title": card.paper,
            "year": card.year,
            "venue": card.venue,
            "url": f"arXiv {card.arxiv}" if card.arxiv else "",
        },
        "source": {k: facts.get(k) for k in ("name", "modality", "classes", "channels")}
        | {"train": usable, "generated": bool(facts.get("generated")), "beside": facts.get("beside") or {}},
        "seconds": seconds,
        "created": f"{datetime.now():%Y-%m-%d %H:%M}",
        "command": f"selftaught train --config {typed(layout.config)}",
        "config": config["settings"] | config["options"],
        "environment": config.get("environment"),
        "samples": facts["samples"],
        "stages": [
            {"name": name, "steps": stage["steps"], "seconds": stage.get("seconds")}
            for name, stage in state["stages"].items()
        ],
        "metrics": _metrics([row for place in places for row in _curves(place.metrics)], facts),
        "skipped": skipped,
    }
    found["tasks"] = _tasks(state.get("tasks") or [], facts)
    return {key: value for key, value in (found | _judged(lead, evaluations, facts)).items() if value}


def _judged_on(lead: Evaluation, evaluations: Sequence[Evaluation]) -> str:
    """The end of the title: what a run was judged on, that which the page is about first; "" where it is its own."""
    if lead.own:
        return ""
    others = sorted({one.name for one in evaluations if not one.own} - {lead.name})
    return f", judged on {' and '.join([lead.name, *others])}"


def _tasks(rows: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any] | None:
    """Accuracy, or without labels the loss, on every task of a stream after each was learnt."""
    if len(rows) < 2:
        return None
    key = "loss" if any(value is None for row in rows for value in row["accuracy"]) else "accuracy"
    metric = "loss" if key == "loss" else "accuracy of a linear probe"
    names = [task["name"] for task in facts["tasks"]]
    return {"names": names, "metric": metric, "rows": [row[key] for row in rows]}


_JUDGED = ("this", "original", "retrained", "random", "raw")
"""What the page's table has a column for, where it was measured."""


def _judged(lead: Evaluation, evaluations: Sequence[Evaluation], facts: dict[str, Any]) -> dict[str, Any]:
    """What the evaluations say in numbers."""
    stored, classes = lead.numbers(), lead.features().get("classes")
    names = classes.tolist() if classes is not None else facts.get("classes") if lead.own else None
    found: dict[str, Any] = {
        "label_efficiency": _label_efficiency(stored.get("fewlabel"), names),
        "confusion": _confusion(stored.get("linear"), names),
        "spectrum": _spectrum(stored.get("diagnostics")),
        "protocols": [],
    }
    for one in sorted(evaluations, key=lambda one: one.folder != lead.folder):
        leads = one.folder == lead.folder
        for name, kinds in one.numbers().items():
            if leads and name == "fewlabel" and found["label_efficiency"]:
                continue
            shown = name if leads else f"{name} on {one.name or facts['name']}"
            figures = kinds["this"]["figures"] or {}
            said = {key: figures[key] for key in ("better", "untouched", "seen") if figures.get(key)}
            columns = {kind: kinds[kind] for kind in _JUDGED if kind in kinds}
            found["protocols"].append({"name": shown} | said | columns)
    return found


def selections(layout: Layout) -> list[dict[str, Any]]:
    """The choices that a run made of its samples as it learnt, a table; none where it made none."""
    rows = read_rows(layout.path / "selections.csv")
    if not rows:
        return []
    known: list[tuple[str, str, Callable[[str], Any]]] = [
        ("step", "step", int), ("epoch", "epoch", int), ("kept", "kept", int), ("rule", "mode", str),
        ("alike to the last choice (Jaccard)", "jaccard", float), ("bits of the classes", "label_entropy", float),
        ("images learnt from", "images_trained", int), ("images embedded", "images_embedded", int),
        ("seconds", "seconds", float), ("note", "note", str),
    ]  # fmt: skip
    shown = [column for column in known if any(row.get(column[1]) for row in rows)]
    note = "What was kept lies in selections/, a list of names for each choice."
    if any(name == "label_entropy" for _, name, _ in shown):
        note += " Bits: the entropy of the kept samples' classes, which the choice itself does not see."
    return [
        {
            "title": "Which samples were chosen to learn from",
            "note": note,
            "columns": [title for title, _, _ in shown],
            "rows": [[kind(row[name]) if row.get(name) else "" for _, name, kind in shown] for row in rows],
        }
    ]


def page(layout: Layout, config: dict[str, Any], method: Method, lead: Evaluation, say: Callable[[str], None]) -> Page:
    """What the pictures of one run are drawn from.

    Args:
        layout: of the run.
        config: as its config.yaml has it.
        method: trained, facing the run's own kind of samples.
        lead: the evaluation that the page is about.
        say: told which samples can't be shown, since their source is gone.
    """
    settings, modality = Settings(**config["settings"]), config["data"]["modality"]
    data = settings.data if lead.own else lead.data
    kept = lead.features()
    train: Source | None = None
    test: Source | None = None
    try:
        taken = method.takes(training_source(settings.data, modality, settings))
        train = method.arranged({method.roles[0]: taken}, method.config)[method.roles[0]]
    except UserError as error:  # gone since, or it had no name: what is stored is shown
        say(f"without pictures of the training data: {error}")
    if data is not None:
        try:
            split: Literal["all", "test"] = "all" if "whole" in kept else "test"
            by = settings.by if lead.own else "auto"
            test = open_source(data, modality=modality, split=split, by=by, seed=settings.seed)
        except UserError as error:
            say(f"without pictures of {data}: {error}")
    saved = layout.checkpoint(method.stages[-1])  # holds the parts that are not delivered, too
    return Page(method, train, test, settings, kept, lead.sections(), saved)


def _metrics(rows: list[dict[str, str]], facts: dict[str, Any]) -> dict[str, Any] | None:
    """Training curves, the stages one after another."""
    if not rows:
        return None
    offset, steps, last = 0, [], ("", 0)
    for row in rows:
        if row["stage"] != last[0] and last[0]:
            offset += last[1]
        last = (row["stage"], int(row["step"]))
        steps.append(offset + int(row["step"]))

    def column(name: str) -> list[float | None]:
        return [float(row[name]) if row.get(name) else None for row in rows]

    known = {"stage", "step", "lr", "per_second", "loss", *ONLINE}
    names = dict.fromkeys(name for row in rows for name in row)
    terms = {name: column(name) for name in names if name not in known}
    traces: dict[str, Any] = {"loss": column("loss"), "lr": column("lr"), "throughput": column("per_second")}
    traces["terms"] = terms
    for name in ONLINE:
        traces[name] = [[step, score] for step, score in zip(steps, column(name), strict=True) if score is not None]
    unit = kind_of(facts["modality"]).rate
    chance = 1 / len(facts["classes"]) if facts.get("classes") else None
    stages = [row["stage"] for row in rows]
    return {"step": steps, "stage": stages, "series": traces, "unit": unit, "chance": chance}


def _curves(path: Path) -> list[dict[str, str]]:
    """The rows of a stage's metrics.csv: a stage, a whole step, and numbers or nothing.

    Raises:
        UserError: it is damaged.
    """
    rows = read_rows(path)
    try:
        for row in rows:
            int(row["step"])
            for name, value in row.items():
                if name != "stage" and value:
                    float(value)
            if not row["stage"]:
                raise ValueError("a row without a stage")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({str(error)[:60]}); delete it to go on without the curves") from error
    return rows


def _label_efficiency(stored: dict[str, Any] | None, classes: list[str] | None) -> dict[str, Any] | None:
    if not stored:
        return None
    names = {"this": "this encoder", "original": "original model", "random": "untrained encoder", "raw": "raw input"}
    names |= {"statistics": "channel means and deviations"}
    curves: list[dict[str, Any]] = []
    x: list[float] = []
    for kind, label in names.items():
        points = (stored.get(kind) or {}).get("figures", {}).get("curve", {}).get("per_class")
        if points:
            x = [point["n"] for point in points]
            numbers = [point["accuracy"] for point in points]
            role = kind if kind != "statistics" else "other"
            curves.append({"name": label, "role": role} | {k: [n[k] for n in numbers] for k in ("mean", "low", "high")})
    chance = 1 / len(classes) if classes else None
    note = "intervals over draws of the labelled samples (95 %)"
    return {"x": x, "curves": curves, "chance": chance, "note": note} if curves else None


def _confusion(stored: dict[str, Any] | None, classes: list[str] | None) -> dict[str, Any] | None:
    """Confusion matrix of the linear probe on this encoder, under the classes' names."""
    figures = ((stored or {}).get("this") or {}).get("figures", {})
    confusion = figures.get("confusion") or {}
    matrix = confusion.get("matrix")
    if not matrix:
        return None
    codes = confusion.get("classes", range(len(matrix)))
    known = [classes[k] if classes and 0 <= k < len(classes) else str(k) for k in codes]
    return {"matrix": matrix, "classes": known}


def _spectrum(stored: dict[str, Any] | None) -> dict[str, Any] | None:
    if not stored:
        return None
    return {
        kind: result["figures"]["spectrum"]
        for kind, result in stored.items()
        if result and result.get("figures", {}).get("spectrum") is not None
    }


def write(path: Path, runs: list[dict[str, Any]], say: Callable[[str], None] = lambda line: None) -> Path:
    """Draw the page of one run, or of several beside one another."""
    say(f"writing {path}")
    return report.write(path, runs)
