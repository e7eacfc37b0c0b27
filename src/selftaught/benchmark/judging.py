"""How a cell is judged: label fractions on its own data, the other data sets, out-of-distribution detection.

Features are embedded once per data set and serve everything. Nothing is fitted on a test set; the scores of the
out-of-distribution detection see in-distribution training features only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from selftaught import evaluation
from selftaught.benchmark._cell import UNTRAINED, Cell
from selftaught.benchmark.mixture import limited
from selftaught.data import Source
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.evaluation.finetune import finetune
from selftaught.evaluation.linear import linear
from selftaught.evaluation.ood import detection, make_scorer

PROBES = ("linear", "linear-sgd", "knn", "finetune")
KEPT = ("accuracy", "balanced_accuracy", "auc", "f1", "kappa")


class Embedded(NamedTuple):
    """One data set through the encoder: training features and labels, test features and labels, and the sources."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    parts: tuple[Source, Source]


def probes_of(wanted: Mapping[str, Any]) -> list[str]:
    """The probes that a cell's ``judge`` names."""
    named = wanted["probe"]
    return [named] if isinstance(named, str) else list(named)


def judge(run: Any, cell: Cell) -> list[dict[str, Any]]:
    """Everything that the cell's ``judge`` asks for, as records.

    ``judge`` holds: ``on`` (name -> source string), ``own`` (name of the cell's data set in it, "" for a union),
    ``probe`` (one, or a list of which the first makes the main tables), ``fractions``, ``cross`` (probe the other sets
    too), ``ood`` (scorers), ``neighbours``, ``limits`` (training and test samples of each set, 0 for all), ``features``
    (keep them); and ``recipe`` of fine-tuning where it isn't the default.

    Returns:
        dicts with ``judged``, ``fraction``, ``protocol``, ``headline`` and ``numbers``.
    """
    wanted, method = cell["judge"], run.method
    own = wanted["own"]
    everywhere = wanted["cross"] or wanted["ood"] or not own
    names = list(wanted["on"]) if everywhere else [own]
    names.sort(key=lambda name: name != cell["data"])  # its own first: where an untrained encoder is calibrated
    sets: dict[str, Embedded] = {}
    for name in names:
        parts = _parts(run, cell, name)
        if cell["method"] == UNTRAINED and not sets:
            _calibrate(method, parts[0])
        sets[name] = _embed(method, parts, cell)
    if wanted["features"]:
        _keep(run, sets)
    records = [record for name in names for record in _labels(run, cell, name, sets[name])]
    return records + (_ood(cell, sets) if own else [])


def _parts(run: Any, cell: Cell, name: str) -> tuple[Source, Source]:
    from selftaught.run.samples import labelled_parts

    settings = run.settings
    settings.by, settings.noise = "auto", ""
    spec = cell["judge"]["on"][name]
    parts = labelled_parts(spec, run.method.modality, settings)
    if parts is None:
        raise UserError(f"{name}: {spec} has no labels to judge by; give labelled data, or judge on other sets")
    if parts[0].channels != run.method.channels:
        raise UserError(
            f"{name}: {parts[0].channels} channels where {cell['data']} has {run.method.channels}; "
            "write SOURCE?channels=3 for each to judge one set with the encoder of another"
        )
    train, test = cell["judge"]["limits"]
    return limited(parts[0], train), limited(parts[1], test)


def _calibrate(method: Any, train: Source) -> None:
    from selftaught.run.features import calibrate

    calibrate(method, train)


def _embed(method: Any, parts: tuple[Source, Source], cell: Cell) -> Embedded:
    from selftaught.run.features import embed

    workers = cell.get("loaders")
    (x, y, _), (test_x, test_y, _) = (embed(method, part, workers=-1 if workers is None else workers) for part in parts)
    assert y is not None
    assert test_y is not None
    return Embedded(x, y, test_x, test_y, parts)


def _keep(run: Any, sets: Mapping[str, Embedded]) -> None:
    folder = run.path / "features"
    folder.mkdir(exist_ok=True)
    for name, found in sets.items():
        plain = "".join(c if c.isalnum() else "-" for c in name)
        train, test = found.x.astype(np.float16), found.test_x.astype(np.float16)
        np.savez(folder / f"{plain}.npz", train=train, train_labels=found.y, test=test, test_labels=found.test_y)


# ---- labels ------------------------------------------------------------------------------------------------------
def _labels(run: Any, cell: Cell, name: str, found: Embedded) -> list[dict[str, Any]]:
    """Probes with shares of the labels on its own data set, with all labels elsewhere."""
    wanted = cell["judge"]
    own = name == wanted["own"]
    if not own and not wanted["cross"] and wanted["own"]:
        return []
    fractions = wanted["fractions"] if own or not wanted["own"] else [1.0]
    if run.method.needs_labels:
        fractions = [cell["fraction"]] if own else [1.0]
    classifies = own and run.method.output == "classes"
    records = []
    probes = probes_of(wanted)
    for fraction in fractions:
        for place, probe in enumerate(probes):
            result = _probe(run, cell, found, fraction, probe)
            records.append(_record(name, fraction, probe, result, headline=not classifies and not place))
    if classifies:
        records.append(_record(name, cell["fraction"], "classify", _own_classes(run, cell, found), headline=True))
    if "knn" not in probes:
        nearest = evaluation.knn(found.x, found.y, found.test_x, found.test_y)
        records.append(_record(name, 1.0, "knn", nearest, headline=False))
    return records


def _record(name: str, fraction: float, protocol: str, result: Result, *, headline: bool) -> dict[str, Any]:
    numbers = {key: result.numbers[key].mean for key in KEPT if key in result.numbers}
    return {
        "judged": name, "fraction": fraction, "protocol": protocol, "headline": headline,
        "numbers": {key: value for key, value in numbers.items() if np.isfinite(value)},
    }  # fmt: skip


def _probe(run: Any, cell: Cell, found: Embedded, fraction: float, probe: str) -> Result:
    seed = cell["seed"]
    picked = evaluation.subset(found.y, fraction=fraction, seed=seed)
    if probe == "finetune":
        return _finetune(run, found, picked, seed, cell["judge"].get("recipe", "adamw"))
    split = (found.x[picked], found.y[picked], found.test_x, found.test_y)
    if probe == "knn":
        return evaluation.knn(*split)
    if probe == "linear-sgd":
        return evaluation.linear_sgd(*split, recipe="medmnist", standardise=True, seed=seed)
    return linear(*split, seed=seed)


def _finetune(run: Any, found: Embedded, picked: np.ndarray, seed: int, recipe: str) -> Result:
    train, test = found.parts[0].subset(picked), found.parts[1]
    (x, y), (test_x, test_y) = _images(run.method, train), _images(run.method, test)
    encoder = run.method.encoder if run.method.output == "classes" else run.method.deliverable()
    options = {"recipe": recipe, "seed": seed, "pixels": run.method.pixel_range}
    return finetune(encoder, x, y, test_x, test_y, **options)


def _images(method: Any, source: Source) -> tuple[Any, np.ndarray]:
    import torch

    from selftaught.engine.in_order import evaluation_batches

    batches = [
        batch
        for batch in evaluation_batches(source, method.evaluation_view(), value_range=method.value_range, workers=0)
        if len(batch["index"])
    ]
    with torch.inference_mode():
        inputs = [b["series"] if "series" in b else method.normalise(b["views"][0]) for b in batches]
        return torch.cat(inputs).clone(), torch.cat([b["label"] for b in batches]).numpy()


def _own_classes(run: Any, cell: Cell, found: Embedded) -> Result:
    """The classifier's own predictions."""
    from selftaught.run.features import embed

    logits, truth, _ = embed(run.method, found.parts[1], workers=0, predict=True)
    return evaluation.classify(logits, truth)


# ---- out of distribution -----------------------------------------------------------------------------------------
def _ood(cell: Cell, sets: Mapping[str, Embedded]) -> list[dict[str, Any]]:
    """Its own test samples against those of every other set, by every scorer."""
    wanted, own = cell["judge"], sets[cell["judge"]["own"]]
    records: list[dict[str, Any]] = []
    for name in wanted["ood"]:
        score = make_scorer(own.x, own.y, scorer=name, neighbours=wanted["neighbours"])
        inside = score(own.test_x)
        for other, found in sets.items():
            if other == wanted["own"]:
                continue
            numbers = detection(inside, score(found.test_x), resamples=0)
            plain = {key: number.mean for key, number in numbers.items()}
            shared = {"judged": other, "fraction": 1.0, "protocol": f"ood {name}", "headline": False}
            records.append(shared | {"numbers": plain})
    return records
