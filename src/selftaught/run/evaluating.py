"""Evaluation of a run: every protocol on its encoder, on an untrained one and on the raw input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from selftaught import evaluation
from selftaught.data import Source, open_source
from selftaught.engine.in_order import evaluation_batches
from selftaught.engine.loader import as_unit_float
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.evaluation import Result
from selftaught.run import samples, suites
from selftaught.run.contenders import some
from selftaught.run.features import calibrate, channel_statistics, embed, raw
from selftaught.run_settings import Settings

LABELLED = ("knn", "linear", "fewlabel", "retrieval", "diagnostics")
UNLABELLED = ("diagnostics",)
_LIMIT_TRAIN, _LIMIT_TEST, _LIMIT_ATTACKED = 20_000, 10_000, 1000


def judge(
    protocols: list[str] | None, bench: suites.Bench, *, seeds: int
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Suites and the protocols on features, each where it belongs; see `suites.evaluate`, `embedding_protocols`."""
    names = list(protocols or [])
    apart = [name for name in names if name in suites.NAMES]
    found = suites.evaluate(apart, bench) if apart else {}
    if not names:
        found = suites.usual(bench)
    rest = [name for name in names if name not in apart]
    if apart and not rest:
        return found, {}
    more, kept = embedding_protocols(
        bench.method,
        bench.untrained,
        bench.settings,
        data=bench.data,
        protocols=rest or None,
        seeds=seeds,
        say=bench.say,
        baselines=bench.baselines,
        fraction=bench.options.fraction,
    )
    return found | more, kept


def embedding_protocols(
    method: Method,
    untrained: Callable[[], Method],
    settings: Settings,
    *,
    data: Any,
    protocols: list[str] | None,
    seeds: int,
    say: Callable[[str], None],
    baselines: bool = True,
    fraction: float = 1.0,
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Run protocols on three kinds of features; fine-tuning on a ``fraction`` of every class's training labels.

    Returns:
        per protocol a dict with the Result of ``this`` encoder, a ``random`` one and the ``raw`` input (for fewlabel
        also of the channels' ``statistics``, the simplest features); and the test features, labels and indices.
    """
    parts = samples.labelled_parts(data, method.modality, settings)
    own = ("classify",) if method.output == "classes" else ()
    names = list(protocols) if protocols else [*own, *LABELLED] if parts else list(UNLABELLED)
    _check(names, parts is not None, data, bool(own))
    if parts is None:
        whole = open_source(data, modality=method.modality, split="all", seed=settings.seed)
        parts = (some(whole, _LIMIT_TRAIN), some(whole, _LIMIT_TEST))
    train, test = some(parts[0], _LIMIT_TRAIN), some(parts[1], _LIMIT_TEST)
    taught = train if fraction == 1 else some(_fewer_labels(parts[0], fraction, settings.seed), _LIMIT_TRAIN)
    say(f"embedding {len(train)} + {len(test)} samples")
    kinds: dict[str, Any] = {"this": (method, embed)}
    if baselines:
        plain = untrained()
        calibrate(plain, train)
        kinds |= {"random": (plain, embed), "raw": (method, raw), "statistics": (method, channel_statistics)}
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    kept: dict[str, np.ndarray] = {}
    for kind, (model, make) in kinds.items():
        if kind == "statistics" and "fewlabel" not in names:
            continue
        x, y, _ = make(model, train)
        tx, ty, index = make(model, test)
        if kind == "this":
            kept = {"features": tx, "index": index} | ({"labels": ty} if ty is not None else {})
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
            found[name][kind] = _run(name, model, (x, y, tx, ty), (taught, test), seeds, views)
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


def restoration_protocol(
    method: Method, settings: Settings, *, data: Any, clean: Any, limit: int, say: Callable[[str], None]
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """PSNR and SSIM of restored images against clean ones, beside the noisy input.

    Clean images come from ``clean`` (a folder with the same names), or are known because the noise was added here.

    Returns:
        the Results, and some before/after/clean triples for the report.
    """
    noisy = open_source(data, modality="image", split="test" if clean is None else "all", by=settings.by)
    noisy = samples.degraded(noisy, settings.noise)
    reference = open_source(clean, modality="image", split="all") if clean is not None else None
    if reference is None and not isinstance(noisy, samples.Degraded):
        raise UserError("PSNR needs clean images of the same names: give --clean FOLDER (or train with --noise)")
    where = {_stem(name): i for i, name in enumerate(reference.names)} if reference is not None else {}
    rows: list[dict[str, Any]] = []
    for i in range(min(len(noisy), limit)):
        try:
            image = as_unit_float(noisy.read(i))
            target = as_unit_float(_clean(noisy, reference, where, i))
        except SampleError as error:
            say(f"skipped {error}")
            continue
        if target.shape != image.shape:
            raise UserError(f"{noisy.names[i]} is {image.shape}, its clean image {target.shape}: sizes must agree")
        say(f"restoring {noisy.names[i]}")
        rows.append({"name": noisy.names[i], "noisy": image, "restored": restore(method, image), "clean": target})
    result = {
        kind: evaluation.restoration([r[key] for r in rows], [r["clean"] for r in rows], data_range=1.0)
        for kind, key in (("this", "restored"), ("raw", "noisy"))
    }
    return {"restoration": result}, rows


def examples(method: Method, settings: Settings, data: Any, count: int = 3) -> list[dict[str, Any]]:
    """Some images before and after, for the report of a run that has no clean ones to compare with."""
    noisy = samples.training_source(data, "image", settings)
    rows: list[dict[str, Any]] = []
    for i in np.linspace(0, len(noisy) - 1, min(3 * count, len(noisy))).astype(int):
        if len(rows) == count:
            break
        try:
            image = as_unit_float(noisy.read(int(i)))
        except SampleError:
            continue
        rows.append({"name": noisy.names[int(i)], "noisy": image, "restored": restore(method, image)})
    return rows


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _clean(noisy: Source, reference: Source | None, where: dict[str, int], i: int) -> np.ndarray:
    if reference is None:
        return noisy.clean.read(i)  # type: ignore[attr-defined]
    if _stem(noisy.names[i]) not in where:
        raise UserError(f"--clean has no image named {noisy.names[i]}")
    return reference.read(where[_stem(noisy.names[i])])


def restore(method: Method, image: np.ndarray, tile: int = 512) -> np.ndarray:
    """One image (H,W,C) float32 in [0, 1] through the method; large ones in tiles that leave no seam."""
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(method.device)
    with torch.inference_mode():
        y = method.deliverable()(x, tile=tile)
    return y[0].float().cpu().numpy().transpose(1, 2, 0)
