"""What a run has to show, gathered into the plain sections that the report room draws."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from selftaught import catalog, methods, report
from selftaught._words import one_text, typed
from selftaught.data import Source, as_uint8, open_source
from selftaught.data.kinds import kind_of
from selftaught.data.pixels import conform
from selftaught.engine.batches import draw, render_sample
from selftaught.engine.callbacks import ONLINE
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.report import images as pictures
from selftaught.run import evaluating
from selftaught.run.contenders import some
from selftaught.run.evaluations import Evaluation
from selftaught.run.layout import Layout, read_rows, unusable
from selftaught.run.outputs._base import Page
from selftaught.run.samples import training_source
from selftaught.run.timeline import timeline
from selftaught.run_settings import Settings
from selftaught.views import Pipeline, render

_TILE, _POINTS, _QUERIES, _HITS, _ROWS = 48, 600, 8, 8, 6
_EXCERPT = 160
_GALLERY, _VIEW, _FILM = 160, 240, 72
"""Longest sides of pictures in pixels: at most about one and a half times as large as they are shown."""


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


def samples_and_map(page: Page) -> dict[str, Any]:
    """The sections of an encoder that need the samples: views, map, gallery, windows."""
    found: dict[str, Any] = {}
    if page.train is not None and kind_of(page.train.modality).pixels:
        found["views"] = _views(page.train, page.method, page.settings)
        whole = _whole(page)
        if whole is not None:
            found["pictures"] = _made(page.train, whole, page.settings)
    index = page.features.get("index")
    test = None if page.test is None else some(page.test, evaluating.LIMIT_TEST)  # as it was drawn to be judged
    if test is not None and index is not None and int(index.max(initial=-1)) < len(test):
        found |= _embedding_sections(test, page.method, page.features, test.modality)
        if test.modality == "clip":
            found["timeline"] = timeline(test, page.method)
    return found


# ---- numbers -----------------------------------------------------------------------------------------------------
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


# ---- pictures ----------------------------------------------------------------------------------------------------
def _views(source: Source, method: Method, settings: Settings) -> dict[str, Any]:
    """Some samples as they are evaluated, and the views that training makes of them."""
    rng = np.random.default_rng(settings.seed)
    rows, names, columns = [], [], []
    for i in rng.permutation(len(source))[:_ROWS]:
        try:
            seen = {"original": thumbnail(source, method, int(i))} | _views_of(source, method, int(i), rng)
        except SampleError:
            continue
        columns = list(seen)
        rows.append([pictures.encode(picture, size=_VIEW, quality=80) for picture in seen.values()])
        names.append(_called(source, int(i)))
    return {"columns": columns, "rows": rows, "names": names} if rows else {}


def _called(source: Source, i: int) -> str:
    """The name of a sample, and its text where it has one."""
    if "text" not in source.fields:
        return str(source.names[i])
    text = source.sample(i, ["text"])["text"]
    return f"{source.names[i]}: {text if isinstance(text, str) else ' / '.join(text)}"


def _views_of(source: Source, method: Method, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Each view of a sample as a picture, by its name."""
    recipe = method.learning_recipe()
    if recipe is not None:
        recipe = recipe.with_kinds({name: field.kind for name, field in source.fields.items()})
        found = render_sample(source, i, recipe, rng, value_range=method.value_range)
        return {name: _still(value) for name, value in found.items() if "." not in name and np.ndim(value) in (3, 4)}
    image = _conformed(source, method, i)
    size = image.shape[:2]
    made = (render(image, p, draw(p, rng, size[0], size[1], source.names[i])) for p in method.learning_views())
    return {f"view {k}": view for k, view in enumerate(made, start=1)}


def _whole(page: Page) -> Method | None:
    """The method with all of its networks, not only what it delivers, where it makes pictures of them."""
    method, saved = page.method, page.checkpoint
    if not method.draws or method.modality != "image" or saved is None or not saved.exists():
        return None
    if not isinstance(method.evaluation_view(), Pipeline):
        return None
    found, kept = copy.deepcopy(method), method.deliverable().state_dict()
    found.load_state_dict(torch.load(saved, map_location=method.device, weights_only=True)["state_dict"])
    found.deliverable().load_state_dict(kept)  # averaged or best weights, where the run kept those
    return found.eval()


_MADE = (
    "Hidden parts are shown in the mean colour. Where patch tokens are shown, like colours are like parts to the "
    "model, in all pictures alike."
)


def _made(source: Source, method: Method, settings: Settings) -> dict[str, Any]:
    """What the method makes of some samples, in pictures; every time of the same ones."""
    rng, found, names = np.random.default_rng(settings.seed), [], []
    for i in rng.permutation(len(source))[:_ROWS]:
        try:
            found.append(thumbnail(source, method, int(i)))
        except SampleError:
            continue
        names.append(str(source.names[int(i)]))
    if not found:
        return {}
    x = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(method.device)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(settings.seed)
        parts = method.pictures(method.normalise(x))
    mean, std = method.pixel_mean.view(-1, 1, 1), method.pixel_std.view(-1, 1, 1)
    columns = {name: _as_pictures(part.float() * std + mean) for name, part in parts.items()}
    rows = [[pictures.encode(p, size=_VIEW, quality=80) for p in row] for row in zip(*columns.values(), strict=True)]
    return {"columns": list(columns), "rows": rows, "names": names, "note": _MADE} if rows else {}


def _as_pictures(x: torch.Tensor) -> list[np.ndarray]:
    """Images (N, C, H, W) in [0, 1] as uint8 (H, W, C); what lies outside is cut off."""
    return list((x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())


def _still(sample: np.ndarray) -> np.ndarray:
    """A picture of a sample: itself, or the middle frame of a clip or slice of a volume; uint8 (H,W,C)."""
    return as_uint8(sample[len(sample) // 2] if sample.ndim == 4 else sample)


def _conformed(source: Source, method: Method, i: int) -> np.ndarray:
    """A sample as the method sees it before its views, as a uint8 picture."""
    sample = source.read(i)
    sample = sample[len(sample) // 2] if sample.ndim == 4 else sample
    return as_uint8(conform(sample, method.channels, source.names[i]), method.value_range)


def thumbnail(source: Source, method: Method, i: int) -> np.ndarray:
    """A sample as it is evaluated, as a uint8 picture (H,W,C)."""
    plain, image = method.evaluation_view(), _conformed(source, method, i)
    if not isinstance(plain, Pipeline):
        return image
    return render(image, plain, draw(plain, np.random.default_rng(0), image.shape[0], image.shape[1], source.names[i]))


def _embedding_sections(source: Source, method: Method, kept: dict[str, np.ndarray], modality: str) -> dict[str, Any]:
    from selftaught import evaluation

    rng = np.random.default_rng(0)
    shown = np.sort(rng.permutation(len(kept["index"]))[:_POINTS])
    index, features = kept["index"][shown], kept["features"][shown]
    labels = kept["labels"][shown] if "labels" in kept else None
    untrained = kept["random"][shown] if len(kept.get("random", ())) == len(kept["index"]) else None
    names = [str(source.names[i]) for i in index]
    found: dict[str, Any] = {
        "map": {
            "xy": evaluation.project(features).coordinates,
            "label": labels,
            "classes": source.classes if labels is not None else None,
            "names": names,
            "seen": method.needs_labels,
        }
    }
    if modality == "text":
        found["map"]["names"] = [excerpt(source, int(i)) for i in index]
        return found
    if not kind_of(modality).pixels:
        found["series"] = {"windows": _windows(source, index, labels, rng)}
        return found
    thumbs = [thumbnail(source, method, int(i)) for i in index]
    found["map"]["thumbs"] = pictures.sprite_sheet(thumbs, tile=_TILE)

    def label(k: int) -> str | None:
        return None if labels is None else source.classes[labels[k]] if source.classes else str(labels[k])

    def gallery(of: np.ndarray, query: int) -> list[dict[str, Any]]:
        unit = of / np.maximum(np.linalg.norm(of, axis=1, keepdims=True), 1e-12)
        return [
            {
                "png": tiles[h],
                "label": label(h),
                "name": names[h],
                "similarity": float(unit[query] @ unit[h]),
                "point": h,
                **tiles.films,
            }
            for h in evaluation.nearest(of, np.array([query]), k=_HITS)[0].tolist()
        ]

    if len(index) < 2:
        return found
    rows = []
    tiles = _Films(source, method, index) if modality == "clip" else _Encoded(thumbs)
    for query in rng.permutation(len(index))[:_QUERIES].tolist():
        row = {"query": tiles[query], "label": label(query), "name": names[query], "point": query} | tiles.films
        row["hits"] = gallery(features, query)
        if untrained is not None:
            row["untrained"] = gallery(untrained, query)
        rows.append(row)
    found["neighbours"] = rows
    return found


def excerpt(source: Source, i: int) -> str:
    """The beginning of a text."""
    text = one_text(source.read(i))
    return text if len(text) <= _EXCERPT else f"{text[: _EXCERPT - 3]}..."


class _Encoded(dict[int, str]):
    """Thumbnails as text, each made once."""

    films: ClassVar[dict[str, int]] = {}

    def __init__(self, thumbs: list[np.ndarray]) -> None:
        super().__init__()
        self.thumbs = thumbs

    def __missing__(self, k: int) -> str:
        self[k] = pictures.encode(self.thumbs[k], size=_GALLERY, quality=80)
        return self[k]


class _Films(dict[int, str]):
    """Clips as strips of a few frames beside each other, which the page shows one after the other."""

    films: ClassVar[dict[str, int]] = {"frames": 8}

    def __init__(self, source: Source, method: Method, index: np.ndarray) -> None:
        super().__init__()
        self.source, self.method, self.index = source, method, index

    def __missing__(self, k: int) -> str:
        i, count = int(self.index[k]), self.films["frames"]
        clips: Any = self.source
        numbers = np.linspace(0, clips.frames(i) - 1, count).round().astype(np.int64)
        shown = clips.read(i, frames=np.unique(numbers))[np.searchsorted(np.unique(numbers), numbers)]
        self[k] = pictures.film(as_uint8(shown, self.method.value_range), side=_FILM)
        return self[k]


def _windows(source: Source, index: np.ndarray, labels: np.ndarray | None, rng: Any) -> list[dict[str, Any]]:
    rows = []
    for k in rng.permutation(len(index))[:_ROWS]:
        window: dict[str, Any] = {"channels": source.read(int(index[k])), "rate": source.rate}
        if labels is not None:
            window["label"] = source.classes[labels[k]] if source.classes else str(labels[k])
        rows.append(window)
    return rows


def write(path: Path, runs: list[dict[str, Any]], say: Callable[[str], None] = lambda line: None) -> Path:
    """Draw the page of one run, or of several beside one another."""
    say(f"writing {path}")
    return report.write(path, runs)
