"""Evaluation of an encoder: every protocol on its features, on an untrained one's and on the raw input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from selftaught import evaluation
from selftaught._words import plural
from selftaught.data import Source, open_source
from selftaught.data.spec import near
from selftaught.engine.memory import freed_memory_kept
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.evaluation.finetune import finetune
from selftaught.evaluation.restricted import matching
from selftaught.run import samples, suites
from selftaught.run.bench import Bench, Options
from selftaught.run.contenders import some
from selftaught.run.features import batches_of, calibrate, channel_statistics, embed, raw
from selftaught.run.finetuning import finetune_views

LABELLED = ("knn", "linear", "fewlabel", "retrieval", "diagnostics")
UNLABELLED = ("diagnostics",)
NUMERIC = ("regression", "diagnostics")
LIMIT_TEST = 10_000
_LIMIT_TRAIN, _LIMIT_ATTACKED = 20_000, 1000

_OF_THE_MODEL = ("scores", "encoder", "classifier")
"""Inputs of protocols that ask the model itself, not its features."""
_BASELINES = ("random", "raw")

Found = dict[str, dict[str, Result]]


@freed_memory_kept()
def judge(bench: Bench, own: tuple[str, ...] = ()) -> tuple[Found, dict[str, np.ndarray]]:
    """Suites and the protocols on features, each where it belongs.

    Args:
        bench: what is judged, on what.
        own: protocols on the model's own predictions that it has besides, such as classify.

    Returns:
        per protocol the Results of ``this``, ``random`` and ``raw``; and the test features, labels and indices.
    """
    apart = [name for name in bench.protocols if name in suites.NAMES]
    rest = [name for name in bench.protocols if name not in apart]
    if apart and rest:  # what can't be done is told before anything runs
        _, labelled, numeric = _parts(bench)
        _check(rest, labelled, numeric, bench.data, bool(own))
    found = suites.evaluate(apart, bench) if apart else suites.usual(bench) if not bench.protocols else {}
    if apart and not rest:
        return found, {}
    more, kept = embedding_protocols(bench, rest, own)
    return found | more, kept


def embedding_protocols(bench: Bench, names: list[str], own: tuple[str, ...]) -> tuple[Found, dict[str, np.ndarray]]:
    """Run protocols on three kinds of features; fine-tuning on a ``fraction`` of every class's training labels.

    Returns:
        per protocol a dict with the Result of ``this`` encoder, a ``random`` one and the ``raw`` input (for fewlabel
        also of the channels' ``statistics``, the simplest features; for a method that changes an encoder also of the
        ``original`` one); and the test features, labels and indices (into
        `some` LIMIT_TEST of the test samples; with ``whole``, of all samples, since there are no labels). Baselines
        whose features are those of ``this`` (an encoder that learns nothing, such as TF-IDF) are named in its note and
        have no Result of their own.
    """
    method, settings, fraction, say = bench.method, bench.settings, bench.options.fraction, bench.say
    parts, labelled, numeric = _parts(bench)
    usual = (*(own if labelled else ()), *(LABELLED if labelled else NUMERIC if numeric else UNLABELLED))
    asked = bool(names)
    names = names or list(usual)
    _check(names, labelled, numeric, bench.data, bool(own))
    train, test = some(parts[0], _LIMIT_TRAIN), some(parts[1], LIMIT_TEST)
    taught = train if fraction == 1 else some(_fewer_labels(parts[0], fraction, settings.seed), _LIMIT_TRAIN)
    say(f"embedding {len(train)} + {len(test)} samples")
    kinds: dict[str, Any] = {"this": (method, embed)}
    if bench.baselines:
        plain = bench.untrained()
        calibrate(plain, train)
        before = method.began_from()
        kinds |= {} if before is None else {"original": (before, embed)}
        kinds |= {"random": (plain, embed), "raw": (method, raw), "statistics": (method, channel_statistics)}
    found: Found = {name: {} for name in names}
    kept: dict[str, np.ndarray] = {}
    refused: dict[str, UserError] = {}
    untouched: set[str] = set()
    for kind, (model, make) in kinds.items():
        if kind == "statistics" and "fewlabel" not in names:
            continue
        sides = _Sides(train, test, make(model, train), make(model, test))
        if kind == "this":
            own_sides = sides
            kept = sides.kept() | ({} if labelled or numeric else {"whole": np.array(True)})
        again = kind in _BASELINES and own_sides.are(sides) and (kind == "raw" or own_sides.are_input(method))
        if kind == "random" and not again:
            kept["random"] = sides.test[0]
        untouched |= {kind} if again else set()
        views = _second_view(model, test) if make is embed and "diagnostics" in names else None
        for name in names:
            inputs = evaluation.PROTOCOLS[name].inputs
            if again and inputs not in _OF_THE_MODEL:
                continue  # the same numbers once more
            if (kind == "statistics" and name != "fewlabel") or (kind == "raw" and inputs in _OF_THE_MODEL):
                continue
            say(f"{name}: {evaluation_name(kind)}")
            try:
                found[name][kind] = _run(name, model, sides, (taught, test), bench, views)
            except UserError as error:
                if asked or kind != "this":
                    raise
                refused[name] = error
        if kind == "this" and refused:  # what nobody asked for by name takes nothing from the rest
            names = [name for name in names if name not in refused]
            if not names:
                raise next(iter(refused.values()))
            for name, reason in refused.items():
                del found[name]
                say(f"without {name}: {reason}")
    for name in names if untouched else ():
        if evaluation.PROTOCOLS[name].inputs not in _OF_THE_MODEL:
            found[name]["this"] = found[name]["this"].noted(_said_once(untouched))
    if fraction < 1 and "finetune" in found:
        found[f"finetune {100 * fraction:g}%"] = found.pop("finetune")
    return found, kept


def _said_once(kinds: set[str]) -> str:
    others = "an untrained encoder and the raw input give" if len(kinds) == 2 else "the raw input gives"
    return f"{others} the same features: this encoder hands the input on, nothing of it is learnt"


def evaluation_name(kind: str) -> str:
    """What a reader is told of a kind of features."""
    return {"random": "untrained"}.get(kind, kind)


def _parts(bench: Bench) -> tuple[tuple[Source, Source], bool, bool]:
    """Training and test samples, whether they have classes, and whether they have numbers to predict."""
    method, settings = bench.method, bench.settings
    parts = samples.labelled_parts(bench.data, method.modality, settings)
    if parts is not None:
        return parts, True, all(numbers_of(part) is not None for part in parts)
    options: dict[str, Any] = {"modality": method.modality, "seed": settings.seed}
    whole = open_source(bench.data, split="all", **options)
    if numbers_of(whole) is None:
        return (some(whole, _LIMIT_TRAIN), some(whole, LIMIT_TEST)), False, False
    train, test = (open_source(bench.data, split=split, by=settings.by, **options) for split in ("train", "test"))
    return (train, test), False, True


def numbers_of(source: Source) -> np.ndarray | None:
    """The number that each sample stands for, float64 (n,) or (n, m), NaN where there is none; None without numbers.

    Numbers of a table are taken as they are. Classes count by the value that their names are ("60", "72.5"), never by
    their place in the list.
    """
    given = getattr(source, "targets", None)
    if given is not None:
        return np.asarray(given, dtype=np.float64)
    if source.labels is None or not source.classes:
        return None
    try:
        return np.array([float(name) for name in source.classes])[np.asarray(source.labels)]
    except ValueError:
        return None


@dataclass(frozen=True)
class _Sides:
    """Features (n, D), labels (n,) or None and indices (n,) of the training and the test samples."""

    train_source: Source
    test_source: Source
    train: tuple[np.ndarray, np.ndarray | None, np.ndarray]
    test: tuple[np.ndarray, np.ndarray | None, np.ndarray]

    def are(self, other: _Sides) -> bool:
        """Whether the features of another encoder are the same numbers."""
        pairs = ((self.train, other.train), (self.test, other.test))
        return all(np.array_equal(own[0], its[0]) for own, its in pairs)

    def are_input(self, method: Method) -> bool:
        """Whether the features are the raw input."""
        sources = self.train_source, self.test_source
        return self.are(_Sides(*sources, *(raw(method, source) for source in sources)))

    def kept(self) -> dict[str, np.ndarray]:
        """What is kept to draw from."""
        x, y, index = self.test
        found = {"features": x, "index": index} | ({"labels": y} if y is not None else {})
        return found | ({"classes": np.array(self.test_source.classes)} if self.test_source.classes else {})

    def numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Features and numbers of both sides, samples without a number left out."""
        found: list[np.ndarray] = []
        for source, (x, _, index) in ((self.train_source, self.train), (self.test_source, self.test)):
            values = numbers_of(source)
            assert values is not None
            values = values[index]
            known = np.isfinite(values.reshape(len(values), -1)).all(1)
            found += [x[known], values[known]]
        return found[0], found[1], found[2], found[3]


def _fewer_labels(source: Source, fraction: float, seed: int) -> Source:
    """A stratified share of a labelled source, at least one sample of each class."""
    return source.subset(evaluation.subset(np.asarray(source.labels), fraction=fraction, seed=seed))


_TARGETS = "folders called by numbers, or --data 'FOLDER/?targets=TABLE.csv:COLUMN'"


def _check(names: list[str], labelled: bool, numeric: bool, data: Any, classifies: bool) -> None:
    unfit = {"images", "depths", "volumes", "slices"} | (set() if classifies else {"scores", "classifier"})
    for name in names:
        fitting = [known for known, p in evaluation.PROTOCOLS.items() if p.inputs not in unfit]
        if name not in fitting:
            raise UserError(f"--protocol {name}{near(name, fitting)}: it may be {', '.join(fitting)}")
        if name == "regression" and not numeric:
            raise UserError(f"--protocol regression needs a number for each sample, {data} has none: {_TARGETS}")
        if not labelled and name not in (*UNLABELLED, *(NUMERIC if numeric else ())):
            raise UserError(f"--protocol {name} needs labels, {data} has none: give --data with class folders")


def _run(name: str, model: Method, sides: _Sides, parts: tuple[Source, Source], bench: Bench, views: Any) -> Result:
    (x, y, _), (tx, ty, _) = sides.train, sides.test
    protocol = evaluation.PROTOCOLS[name]
    if protocol.inputs == "scores":
        return _own_classes(protocol, model, parts[1], bench)
    if protocol.inputs == "encoder":
        return _finetune(model, parts, bench.options)
    if protocol.inputs == "classifier":
        return _as_classifier(protocol, model, parts[1], bench)
    if name == "regression":
        return protocol(*sides.numbers())
    if name == "diagnostics" and views is not None and len(views) == len(tx):
        return protocol(tx, views)
    inputs = {"features": (tx,), "labelled": (tx, ty), "split": (x, y, tx, ty)}[protocol.inputs]
    if name in ("knn", "anomaly") and (told := bench.options.nearest()):
        return protocol(*inputs, **told).noted(f"k = {told['k']}")
    return protocol(*inputs, **({"seeds": bench.seeds} if name in ("fewlabel", "linear-early-stop") else {}))


def _own_classes(protocol: evaluation.Protocol, model: Method, part: Source, bench: Bench) -> Result:
    """The model's own classes, compared with the source's by name."""
    known, note = _of_known_classes(protocol.name, part, bench)
    logits, _, index = embed(model, part.subset(known.rows), predict=True)
    return protocol(logits, known.labels[index]).noted(note)


@dataclass(frozen=True)
class _Known:
    """Samples whose class the model knows: their positions, and the model's number of that class."""

    rows: np.ndarray
    labels: np.ndarray


def _of_known_classes(name: str, part: Source, bench: Bench) -> tuple[_Known, str]:
    """The samples of classes that the model was trained on, by the names of the classes, and what was left out."""
    assert part.labels is not None
    codes = np.asarray(part.labels)
    called = part.classes or [str(k) for k in range(int(codes.max(initial=-1)) + 1)]
    classes = list(bench.classes or map(str, range(bench.method.classes)))
    if called == classes:
        return _Known(np.arange(len(codes)), codes), ""
    known = np.array([k[0] if len(k) == 1 else -1 for k in (matching(classes, [other]) for other in called)])
    labels = known[codes]
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise UserError(
            f"--protocol {name}: {part.name} has none of the run's classes ({', '.join(classes[:3])} ...); rename its "
            "folders, or take --protocol restricted with --labels FILE"
        )
    strange = sorted({called[k] for k in np.unique(codes) if known[k] < 0})
    lost = len(codes) - len(rows)
    note = (
        f"{plural(lost, 'sample')} of classes that the run does not know ({', '.join(strange[:5])}) left out"
        if lost
        else ""
    )
    return _Known(rows, labels[rows]), note


def _second_view(model: Method, source: Source) -> np.ndarray | None:
    """Embeddings of the test images as a training view shows them, for the alignment.

    None where there is none, or none that draws anything: the same view twice would be called stable.
    """
    shown = model.views_of(model.roles[0], source)
    if not isinstance(shown, list):  # a recipe, or samples that are learnt from whole: series, texts
        return None
    drawn = next((pipeline for pipeline in shown if pipeline.draws), None)
    return None if drawn is None else embed(model, source, pipeline=drawn)[0]


def _finetune(model: Method, parts: tuple[Source, Source], options: Options) -> Result:
    changes = {"recipe": options.recipe, **options.tuned()}
    if model.finetuning_view() is not None:
        return finetune_views(model, parts, **changes)
    arrays: list[Any] = []
    for part in (some(parts[0], 5000), some(parts[1], 2000)):
        batches = [batch for batch in batches_of(model, part, model.evaluation_view()) if len(batch["index"])]
        with torch.inference_mode():
            inputs = torch.cat([model.inputs(model.prepare(batch)) for batch in batches])
        arrays += [inputs.clone(), torch.cat([b["label"] for b in batches]).numpy()]
    return finetune(model.deliverable(), *arrays, pixels=model.pixel_range, **changes)


def _as_classifier(protocol: evaluation.Protocol, model: Method, part: Source, bench: Bench) -> Result:
    """A protocol that changes the pixels of test images and asks the model for their classes."""
    pipeline = model.evaluation_view()
    if pipeline is None:
        raise UserError(f"--protocol {protocol.name} changes pixels: it needs a classifier of images, not of series")
    known, note = _of_known_classes(protocol.name, part, bench)
    drawn = np.sort(np.random.default_rng(0).permutation(len(known.rows))[:_LIMIT_ATTACKED])
    batches = [b for b in batches_of(model, part.subset(known.rows[drawn]), pipeline) if len(b["index"])]
    images = torch.cat([b["views"][0] for b in batches])
    truth = torch.from_numpy(known.labels[drawn])[torch.cat([b["index"] for b in batches])]

    def scores(pixels: torch.Tensor) -> torch.Tensor:
        return model.predict({"views": [model.normalise(pixels)]})

    return protocol(scores, images, truth, device=model.device).noted(note)
