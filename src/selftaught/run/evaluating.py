"""Evaluation of an encoder: every protocol on its features, on an untrained one's and on the raw input."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from selftaught import evaluation
from selftaught.data import Source, open_source
from selftaught.engine.in_order import evaluation_batches
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.run import samples, suites
from selftaught.run.contenders import some
from selftaught.run.features import calibrate, channel_statistics, embed, raw
from selftaught.run.suites import Bench

LABELLED = ("knn", "linear", "fewlabel", "retrieval", "diagnostics")
UNLABELLED = ("diagnostics",)
_LIMIT_TRAIN, _LIMIT_TEST, _LIMIT_ATTACKED = 20_000, 10_000, 1000

Found = dict[str, dict[str, Result]]


def judge(bench: Bench, own: tuple[str, ...] = ()) -> tuple[Found, dict[str, np.ndarray]]:
    """Suites and the protocols on features, each where it belongs.

    Args:
        bench: what is judged, on what.
        own: protocols on the model's own predictions that it has besides, such as classify.

    Returns:
        per protocol the Results of ``this``, ``random`` and ``raw``; and the test features, labels and indices.
    """
    apart = [name for name in bench.protocols if name in suites.NAMES]
    found = suites.evaluate(apart, bench) if apart else suites.usual(bench) if not bench.protocols else {}
    rest = [name for name in bench.protocols if name not in apart]
    if apart and not rest:
        return found, {}
    more, kept = embedding_protocols(bench, rest, own)
    return found | more, kept


def embedding_protocols(bench: Bench, names: list[str], own: tuple[str, ...]) -> tuple[Found, dict[str, np.ndarray]]:
    """Run protocols on three kinds of features; fine-tuning on a ``fraction`` of every class's training labels.

    Returns:
        per protocol a dict with the Result of ``this`` encoder, a ``random`` one and the ``raw`` input (for fewlabel
        also of the channels' ``statistics``, the simplest features); and the test features, labels and indices.
    """
    method, settings, fraction, say = bench.method, bench.settings, bench.options.fraction, bench.say
    parts = samples.labelled_parts(bench.data, method.modality, settings)
    names = names or ([*own, *LABELLED] if parts else list(UNLABELLED))
    _check(names, parts is not None, bench.data, bool(own))
    if parts is None:
        whole = open_source(bench.data, modality=method.modality, split="all", seed=settings.seed)
        parts = (some(whole, _LIMIT_TRAIN), some(whole, _LIMIT_TEST))
    train, test = some(parts[0], _LIMIT_TRAIN), some(parts[1], _LIMIT_TEST)
    taught = train if fraction == 1 else some(_fewer_labels(parts[0], fraction, settings.seed), _LIMIT_TRAIN)
    say(f"embedding {len(train)} + {len(test)} samples")
    kinds: dict[str, Any] = {"this": (method, embed)}
    if bench.baselines:
        plain = bench.untrained()
        calibrate(plain, train)
        kinds |= {"random": (plain, embed), "raw": (method, raw), "statistics": (method, channel_statistics)}
    found: Found = {name: {} for name in names}
    kept: dict[str, np.ndarray] = {}
    for kind, (model, make) in kinds.items():
        if kind == "statistics" and "fewlabel" not in names:
            continue
        x, y, _ = make(model, train)
        tx, ty, index = make(model, test)
        if kind == "this":
            kept = {"features": tx, "index": index} | ({"labels": ty} if ty is not None else {})
            if ty is not None and test.classes:
                kept["classes"] = np.array(test.classes)
        if kind == "random":
            kept["random"] = tx
        views = _second_view(model, test) if make is embed and "diagnostics" in names else None
        for name in names:
            if (kind == "statistics" and name != "fewlabel") or (kind == "raw" and name == "classify"):
                continue
            if name == "classify":
                say(f"{name}: {kind}")
                logits, truth, _ = embed(model, test, predict=True)
                found[name][kind] = evaluation.classify(logits, truth)  # type: ignore[arg-type]
                continue
            if kind == "raw" and evaluation.PROTOCOLS[name].inputs in ("encoder", "classifier"):
                continue
            say(f"{name}: {kind}")
            found[name][kind] = _run(name, model, (x, y, tx, ty), (taught, test), bench.seeds, views)
    if fraction < 1 and "finetune" in found:
        found[f"finetune {100 * fraction:g}%"] = found.pop("finetune")
    return found, kept


def _fewer_labels(source: Source, fraction: float, seed: int) -> Source:
    """A stratified share of a labelled source, at least one sample of each class."""
    return source.subset(evaluation.subset(np.asarray(source.labels), fraction=fraction, seed=seed))


def _check(names: list[str], labelled: bool, data: Any, classifies: bool) -> None:
    unfit = {"images"} if classifies else {"images", "scores", "classifier"}
    for name in names:
        fitting = [known for known, p in evaluation.PROTOCOLS.items() if p.inputs not in unfit]
        if name not in fitting:
            raise UserError(f"--protocol {name}: it may be {', '.join(fitting)}")
        if not labelled and name not in UNLABELLED:
            raise UserError(f"--protocol {name} needs labels, {data} has none: give --data with class folders")


def _run(
    name: str, model: Method, arrays: tuple[Any, ...], parts: tuple[Source, Source], seeds: int, views: Any
) -> Result:
    x, y, tx, ty = arrays
    protocol = evaluation.PROTOCOLS[name]
    if protocol.inputs == "encoder":
        return _finetune(model, parts)
    if protocol.inputs == "classifier":
        return _as_classifier(protocol, model, parts[1])
    if name == "diagnostics" and views is not None and len(views) == len(tx):
        return protocol(tx, views)
    inputs = {"features": (tx,), "labelled": (tx, ty), "split": (x, y, tx, ty)}[protocol.inputs]
    return protocol(*inputs, **({"seeds": seeds} if name == "fewlabel" else {}))


def _second_view(model: Method, source: Source) -> np.ndarray | None:
    """Embeddings of the test images as a training view shows them, for the alignment; None for series."""
    pipelines = model.views()
    if not pipelines:
        return None
    return embed(model, source, pipeline=pipelines[0])[0]


def _finetune(model: Method, parts: tuple[Source, Source]) -> Result:
    arrays: list[Any] = []
    for part in (some(parts[0], 5000), some(parts[1], 2000)):
        batches = list(evaluation_batches(part, model.evaluation_view(), value_range=model.value_range))
        with torch.inference_mode():
            inputs = torch.cat(
                [b["series"] if "series" in b else model.normalise(b["views"][0]) for b in batches if len(b["index"])]
            )
        arrays += [inputs.clone(), torch.cat([b["label"] for b in batches]).numpy()]
    return evaluation.finetune(model.deliverable(), *arrays)


def _as_classifier(protocol: evaluation.Protocol, model: Method, part: Source) -> Result:
    """A protocol that changes the pixels of test images and asks the model for their classes."""
    pipeline = model.evaluation_view()
    if pipeline is None:
        raise UserError(f"--protocol {protocol.name} changes pixels: it needs a classifier of images, not of series")
    batches = list(evaluation_batches(some(part, _LIMIT_ATTACKED), pipeline, value_range=model.value_range))
    images = torch.cat([b["views"][0] for b in batches if len(b["index"])])
    labels = torch.cat([b["label"] for b in batches])

    def scores(pixels: torch.Tensor) -> torch.Tensor:
        return model.predict({"views": [model.normalise(pixels)]})

    return protocol(scores, images, labels, device=model.device)
