"""Suites: protocols with a folder layout, classes or layers of their own, beside an untrained encoder and raw input."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import evaluation
from selftaught.data import LOCATIONS, METADATA, Metadata, Source, open_copies, open_source, read_metadata
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.run import (
    contenders,
    dense,
    forgetting,
    image_text,
    prompting,
    refining,
    samples,
    scenes,
    temporal,
    unlearning,
    weighing,
)
from selftaught.run import devices as worn
from selftaught.run.bench import Bench
from selftaught.run.layout import read_yaml

_LIMIT, _LIMIT_LAYERS, _LIMIT_WHITENING = 20_000, 5000, 2000


def evaluate(names: Sequence[str], bench: Bench) -> dict[str, dict[str, Result]]:
    """Run suites; per protocol the Results of ``this``, ``random`` and ``raw``.

    Raises:
        UserError: series; a folder, file or column that is missing; what the protocol refuses.
    """
    wanted = next((name for name in names if name not in _FOR_ALL), None)
    if bench.method.modality != "image" and wanted is not None:
        raise UserError(f"--protocol {wanted} is for images, this run's method takes series")
    return {name: _SUITES[name](bench) for name in names}


def usual(bench: Bench) -> dict[str, dict[str, Result]]:
    """The suites that belong to every evaluation of the method; one that the data don't admit is told and left out."""
    found: dict[str, dict[str, Result]] = {}
    for name in bench.method.judged_by:
        try:
            found |= evaluate([name], bench)
        except UserError as error:
            bench.say(f"not judged by {name}: {error}")
    return found


# ---- copies and places -------------------------------------------------------------------------------------------
def _copies(bench: Bench) -> dict[str, Result]:
    name = "copy-detection"
    copies = open_copies(bench.folder(name, "database/ and queries/"))
    aside, note = copies.whitening, ""
    if aside is None:
        aside = samples.training_source(bench.own.data, "image", bench.own)
        note = f"whitening learnt on {aside.name}"
    aside = contenders.some(aside, _LIMIT_WHITENING)
    found = {}
    for contender in bench.each(name, copies.database):
        describe = contender.descriptor(aside)
        database, at = describe(copies.database)
        others = describe(copies.distractors)[0] if copies.distractors is not None else None
        queries, groups, blocks = [], [], []
        for block, source in copies.queries.items():
            x, index = describe(source)
            queries.append(x)
            groups.append(copies.query_groups[block][index])
            blocks += [block] * len(index)
        arrays = (database, copies.groups[at], np.concatenate(queries), np.concatenate(groups))
        result = evaluation.copy_detection(*arrays, distractors=others, blocks=blocks)
        found[contender.kind] = _noted(result, note)
    return found


def _places(bench: Bench) -> dict[str, Result]:
    name, columns = "geolocalisation", ("latitude", "longitude")
    folder = bench.folder(name, f"images and {LOCATIONS}")
    if bench.options.reference is not None:
        asked, database = _whole(folder), _whole(_folder_of(bench.options.reference))
        where = read_metadata(_folder_of(bench.options.reference) / LOCATIONS, database, columns)
        of_asked = read_metadata(folder / LOCATIONS, asked, columns)
    else:
        options: dict[str, Any] = {"modality": "image", "seed": bench.settings.seed}
        database, asked = (open_source(str(folder), split=split, **options) for split in ("train", "test"))
        where, of_asked = (read_metadata(folder / LOCATIONS, part, columns) for part in (database, asked))
    known, wanted = where.numbers(*columns), of_asked.numbers(*columns)
    database, asked = database.subset(where.rows), asked.subset(of_asked.rows)
    found = {}
    for contender in bench.each(name, database):
        (x, at), (tx, index) = contender.features(database), contender.features(asked)
        found[contender.kind] = evaluation.geolocalisation(x, known[at], tx, wanted[index])
    return found


# ---- fairness ----------------------------------------------------------------------------------------------------
def _attribute_retrieval(bench: Bench) -> dict[str, Result]:
    name, attribute = "fairness-retrieval", bench.options.attribute
    asked, about = _described(bench.folder(name, f"images and {METADATA}"), attribute)
    apart = bench.options.reference is not None
    database, of_it = _described(_folder_of(bench.options.reference), attribute) if apart else (asked, about)
    groups = _groups(bench.options.by, about, ("gender", "skin", "age", "region"))
    wanted, known = np.array(about.column(attribute)), np.array(of_it.column(attribute))
    found = {}
    for contender in bench.each(name, database):
        x, at = contender.features(database)
        tx, index = contender.features(asked) if apart else (x, at)
        members = {key: values[index] for key, values in groups.items()}
        queries: dict[str, Any] = {"queries": tx, "query_attributes": wanted[index].tolist()} if apart else {}
        found[contender.kind] = evaluation.attribute_retrieval(x, known[at].tolist(), **queries, groups=members)
    return found


def _label_association(bench: Bench) -> dict[str, Result]:
    name, options = "fairness-labels", bench.options
    source, about = _described(bench.folder(name, f"images of people and {METADATA}"))
    groups = _groups(options.by, about, ("gender", "skin", "age"), required=True)
    sets = {"sets": _mapping(options.labels)} if options.labels is not None else {}
    found = {}
    for kind, logits, index, classes, note in bench.scorers(name, source):
        members = {key: values[index] for key, values in groups.items()}
        extra: dict[str, Any] = {"threshold": options.threshold, **sets}
        result = evaluation.label_association(logits, contenders.spoken(classes), members, **extra)
        found[kind] = _noted(result, note)
    return found


def _hit_rate(bench: Bench) -> dict[str, Result]:
    name = "hit-rate"
    source, about = _described(bench.folder(name, f"images and {METADATA}"), "labels")
    groups = _groups(bench.options.by, about, ("income", "region"), required=True)
    allowed = about.lists("labels")
    found = {}
    for kind, logits, index, classes, note in bench.scorers(name, source):
        plain = any(label in classes for labels in allowed for label in labels)
        members = {key: values[index] for key, values in groups.items()}
        called = classes if plain else contenders.spoken(classes)
        result = evaluation.hit_rate(logits, called, [allowed[i] for i in index], members)
        found[kind] = _noted(result, note)
    return found


# ---- classes and layers ------------------------------------------------------------------------------------------
def _restricted(bench: Bench) -> dict[str, Result]:
    name = "restricted"
    source, truth = _labels_of_another(name, bench)
    mapping = _mapping(bench.options.labels) if bench.options.labels is not None else None
    found = {}
    for kind, logits, index, classes, note in bench.scorers(name, source):
        labels = [truth[i] for i in index]
        result = evaluation.restricted(logits, classes, labels, other_classes=source.classes, mapping=mapping)
        found[kind] = _noted(result, note)
    return found


def _labels_of_another(name: str, bench: Bench) -> tuple[Source, list[Any]]:
    """Another set and the classes of its images: those of metadata.csv where it has labels, else the class folders."""
    source = open_source(bench.data, modality="image", split="all")
    beside = Path(bench.data) / METADATA if isinstance(bench.data, str | Path) else None
    if beside is not None and beside.is_file():
        about = read_metadata(beside, source)
        if "labels" in about.columns:
            source = source.subset(about.rows)
            source.labels = source.classes = None
            return source, list(about.lists("labels"))
    if source.labels is None:
        raise UserError(f"--protocol {name}: {source.name} has no class folders, and no {METADATA} with labels")
    source = source.subset(np.flatnonzero(source.labels >= 0))  # a file beside the class folders has none
    assert source.labels is not None
    classes = source.classes or [str(k) for k in range(int(source.labels.max()) + 1)]
    return source, [classes[k] for k in source.labels]


def _layerwise(bench: Bench) -> dict[str, Result]:
    name = "layerwise"
    parts = samples.labelled_parts(bench.data, bench.method.modality, bench.settings)
    if parts is None:
        raise UserError(f"--protocol {name} needs labels, {bench.data} has none: give --data with class folders")
    train, test = contenders.some(parts[0], _LIMIT_LAYERS), contenders.some(parts[1], _LIMIT_LAYERS)
    assert train.labels is not None
    assert test.labels is not None
    found = {}
    for contender in bench.each(name, train):
        (x, at), (tx, index) = (contender.layers(part, bench.options.cells()) for part in (train, test))
        found[contender.kind] = evaluation.layerwise(x, train.labels[at], tx, test.labels[index])
    return found


# ---- what folders hold -------------------------------------------------------------------------------------------
def _described(folder: Path, *needed: str) -> tuple[Source, Metadata]:
    """The images of a folder that metadata.csv has a line of, with a value in each needed column."""
    source = _whole(folder)
    about = read_metadata(folder / METADATA, source, needed)
    rows = about.rows[[all(about.column(name)[k] for name in needed) for k in range(len(about.rows))]]
    if not len(rows):
        raise UserError(f"{folder / METADATA}: no image has a value of {' and '.join(needed)}")
    return source.subset(rows), about.some(rows)


def _groups(by: Sequence[str], about: Metadata, usual: Sequence[str], required: bool = False) -> dict[str, np.ndarray]:
    """Columns to part the images by; ages and incomes in numbers as buckets."""
    names = list(by) or [name for name in usual if name in about.columns]
    if not names and required:
        raise UserError(f"{about.path} has no column {' or '.join(usual)}; name others with --by")
    found = {}
    for name in names:
        values: Sequence[str] = about.column(name)
        if name.lower() == "age":
            values = evaluation.buckets(values, evaluation.AGES)
        if name.lower() == "income":
            values = evaluation.buckets(values, evaluation.INCOMES, ("low", "medium", "high"))
        found[name] = np.array(values, dtype=object)
    return found


def _whole(folder: Path) -> Source:
    return open_source(str(folder), modality="image", split="all")


def _folder_of(reference: Any) -> Path:
    path = Path(reference).expanduser() if isinstance(reference, str | Path) else None
    if path is None or not path.is_dir():
        raise UserError(f"--reference {reference}: no such folder")
    return path


def _mapping(path: str | Path) -> dict[str, tuple[str, ...]]:
    content = read_yaml(Path(path).expanduser())
    found = {str(name): (v,) if isinstance(v, str) else v for name, v in content.items()}
    for name, names in found.items():
        if not isinstance(names, list | tuple) or not all(isinstance(n, str | int) for n in names):
            raise UserError(f"{path}: {name} should be a name of a class, or a list of names")
    return {name: tuple(map(str, names)) for name, names in found.items()}


def _noted(result: Result, note: str) -> Result:
    return dataclasses.replace(result, note="; ".join(n for n in (result.note, note) if n))


_SUITES: Mapping[str, Callable[[Bench], dict[str, Result]]] = {
    "copy-detection": _copies,
    "geolocalisation": _places,
    "fairness-retrieval": _attribute_retrieval,
    "fairness-labels": _label_association,
    "hit-rate": _hit_rate,
    "restricted": _restricted,
    "layerwise": _layerwise,
    image_text.ZERO_SHOT: image_text.judge_zero_shot,
    image_text.RETRIEVAL: image_text.judge_text_retrieval,
    forgetting.NAME: forgetting.judge,
    prompting.NAME: prompting.judge,
    prompting.CROSS: prompting.judge_cross_set,
    unlearning.NAME: unlearning.judge,
    dense.NAME: dense.judge,
    refining.NAME: refining.judge,
    weighing.NAME: weighing.judge,
    worn.NAME: worn.judge,
    temporal.NAME: temporal.judge,
    scenes.SEGMENTATION: scenes.judge_segmentation,
    scenes.DETECTION: scenes.judge_detection,
}
_FOR_ALL = (
    "layerwise", refining.NAME, unlearning.NAME, weighing.NAME, worn.NAME, temporal.NAME, scenes.SEGMENTATION,
    scenes.DETECTION,
)  # fmt: skip

NAMES = tuple(_SUITES)
"""Protocols that are run here."""
