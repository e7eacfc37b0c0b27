"""``selftaught benchmark medmnist``: the protocol of Bundele et al. (2024, arXiv 2412.19124) as a grid.

Eight methods, a supervised and an untrained encoder, on the eleven single-label sets of MedMNIST: label fractions,
out-of-distribution detection, transfer across sets, initialisations, ResNet and ViT, one encoder for all sets.
``--quick`` is the same in the small on images that packages ship.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftaught import catalog
from selftaught._paths import expanded
from selftaught._words import typed
from selftaught.benchmark import grid, packaged
from selftaught.benchmark._cell import HOST, UNTRAINED
from selftaught.data import cache_folder
from selftaught.errors import UserError, require
from selftaught.evaluation.ood import SCORERS
from selftaught.run.layout import write_yaml

METHODS = ("simclr", "moco-v3", "byol", "dino", "ressl", "nnclr", "vicreg", "barlow-twins")
"""The paper's eight methods."""
SETS = (
    "pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist", "tissuemnist",
    "organamnist", "organcmnist", "organsmnist",
)  # fmt: skip
"""MedMNIST's 2-D sets without the multi-label ChestMNIST."""
ENCODERS = ("resnet50", "vit_small_patch16_224")
SIZES = (28, 64, 128, 224)
FRACTIONS = (0.01, 0.1, 1.0)
UNION = "all-sets"
_BARLOW: dict[str, Any] = {
    "method": "barlow-twins", "name": "barlow-twins", "preset": "imagenet", "image_size": 32,
    "projector": "2048-2048-2048", "optimizer": "lars", "lr": 0.3, "lars_eta": 0.02, "lars_clip": True,
    "weight_decay": 1e-4, "lambda_": 5e-3, "loss_scale": 0.1, "epochs": 400, "batch_size": 256,
}  # fmt: skip
_VIT = {"optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.04}
QUICK_STEPS = 300
_QUICK = {"batch_size": 64, "image_size": 32, "stem": "standard", "augment": "grey"}
QUICK_VIT = "test_vit"
"""timm's smallest plain vision transformer: width 64, six blocks; four-pixel patches at 32 pixels."""


def run(
    *,
    quick: bool = False,
    data: str | Path | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    write: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    **choices: Any,
) -> grid.Finished | None:
    """Run the benchmark, or go on with it.

    Args:
        quick: the small form, offline, on packaged images.
        data: folder with the official .npz files; None downloads them through the medmnist package.
        out: folder of the grid; default ``benchmark-medmnist`` (``-quick``).
        workers: cells at a time; default one, quick: one per core.
        cluster: "slurm" and so on, see :func:`selftaught.benchmark.grid.run`.
        write: write the grid as YAML here, to be edited and run by ``selftaught benchmark FILE``, and do no more.
        say: called with a line now and then.
        **choices: see :func:`config` and :func:`quick_config`.

    Returns:
        What the grid gave; None where it was only written.

    Raises:
        UserError: missing files, unknown names.
    """
    if quick and data is not None:
        raise UserError("--data: the quick benchmark brings its own images; leave out one of --quick and --data")
    made = quick_config(say=say, **choices) if quick else config(data, **choices)
    if write is not None:
        write_yaml(Path(write), made)
        say(f"{write}: written; run it with: selftaught benchmark {typed(write)}")
        return None
    if workers is None:
        from selftaught.engine.precision import accelerator, cores

        workers = cores() if quick and cluster is None and accelerator() == "cpu" else 1
    return grid.run(made, out=out, workers=workers, cluster=cluster, say=say)


# ---- the paper's protocol ----------------------------------------------------------------------------------------
def config(
    data: str | Path | None = None,
    *,
    methods: Sequence[str] = METHODS,
    sets: Sequence[str] = SETS,
    fractions: Sequence[float] = FRACTIONS,
    seeds: int = 3,
    encoders: Sequence[str] = ENCODERS,
    size: int = 28,
    initialisations: Sequence[str] = ("random", "supervised"),
    scorers: Sequence[str] = SCORERS,
    probe: str = "linear",
    steps: int | None = None,
) -> dict[str, Any]:
    """The grid of the paper's protocol.

    The first encoder and random initialisation make the main tables: all methods, transfer, detection, the union of the
    sets. Further encoders and the initialisation from timm's supervised ImageNet weights are measured beside them.

    Args:
        data: folder with ``pathmnist.npz`` ... (``pathmnist_64.npz`` for other sizes); None downloads.
        methods: slugs; any method of the catalogue that learns from images.
        sets: names as in ``SETS``.
        fractions: shares of the labels.
        seeds: repetitions.
        encoders: timm names; the first is the main one.
        size: side of the images, 28, 64, 128 or 224.
        initialisations: of "random" and "supervised".
        scorers: of out-of-distribution detection; the first makes the matrices.
        probe: linear, linear-sgd, knn or finetune.
        steps: optimiser steps of every run in place of the presets' epochs.

    Raises:
        UserError: an unknown name or a missing file.
    """
    _known("--sets", sets, SETS)
    _known("--initialisations", initialisations, ("random", "supervised"))
    if size not in SIZES:
        raise UserError(f"--size {size}: MedMNIST has {', '.join(map(str, SIZES))}")
    files = _files(data, sets, size)
    judged = {name: f"{path}?channels=3" for name, path in files.items()}
    options: dict[str, Any] = {} if steps is None else {"steps": steps}
    shared: dict[str, Any] = {"name": "medmnist", "sources": {**judged, UNION: list(judged)}} | _common(
        fractions, seeds, scorers, probe, judged
    )
    own = [_with_preset(slug, size, options) for slug in methods]
    more = [_with_preset(UNTRAINED, size, {}), _with_preset("supervised", size, options)]
    main = {"data": list(judged), "encoders": [encoders[0]]}
    first, *others = initialisations
    blocks: list[dict[str, Any]] = [main | {"methods": [*own, *more], "initialisations": [_start(first)]}]
    blocks += [main | {"methods": own, "initialisations": [_start(name)]} for name in others]
    blocks += [main | {"methods": [*own, *more], "encoders": [name]} for name in encoders[1:]]
    if len(judged) > 1:
        blocks.append({"methods": own, "data": [UNION], "encoders": [encoders[0]]})
    small = [{"where": {"encoder": "vit*"}, "options": _VIT}]
    features = {"features": True, "limits": [0, 0]}
    return shared | features | {"overrides": small, "blocks": blocks}


def _common(
    fractions: Sequence[float], seeds: int, scorers: Sequence[str], probe: str, judged: dict[str, str]
) -> dict[str, Any]:
    cross = len(judged) > 1
    return {
        "fractions": [float(f) for f in fractions], "seeds": seeds, "probe": probe, "judge_on": list(judged),
        "cross": cross, "ood": list(scorers) if cross else [],
    }  # fmt: skip


def _start(name: str) -> Any:
    """The sheet's "supervised" initialisation is timm's ImageNet weights."""
    return "random" if name == "random" else {"name": "supervised", "pretrained": True}


def _with_preset(slug: str, size: int, options: dict[str, Any]) -> dict[str, Any]:
    """A method with its MedMNIST recipe; Barlow Twins' is written out here, others without one take their first."""
    presets = catalog.presets(HOST if slug == UNTRAINED else slug)
    if "medmnist" in presets:
        found: dict[str, Any] = {"method": slug, "name": slug, "preset": "medmnist"}
    elif slug == "barlow-twins":
        found = dict(_BARLOW)
    else:
        found = {"method": slug, "name": slug} | ({"preset": next(iter(presets))} if presets else {})
    return found | ({"image_size": size} if size != 28 else {}) | options


def _known(option: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    if not given:
        raise UserError(f"{option}: empty; it may be {', '.join(allowed)}")
    for name in given:
        if name not in allowed:
            raise UserError(f"{option} {name}: it may be {', '.join(allowed)}")


def _files(data: str | Path | None, sets: Sequence[str], size: int) -> dict[str, Path]:
    """Set -> its .npz file, in the folder or downloaded."""
    suffix = "" if size == 28 else f"_{size}"
    names = {name: f"{name}{suffix}.npz" for name in sets}
    if data is None:
        return {name: _download(name, size, file) for name, file in names.items()}
    folder = expanded(data)
    if not folder.is_dir():
        raise UserError(f"--data {typed(data)}: no such folder; give the one with MedMNIST's .npz files")
    lacking = [file for file in names.values() if not (folder / file).is_file()]
    if lacking:
        told = f"{lacking[0]} is not in it" + (f", nor {len(lacking) - 1} more" if len(lacking) > 1 else "")
        raise UserError(f"--data {typed(data)}: {told}; fetch MedMNIST's .npz files there, or choose --sets")
    return {name: (folder / file).resolve() for name, file in names.items()}


def _download(name: str, size: int, file: str) -> Path:
    """One set through the medmnist package, into the cache folder."""
    folder = cache_folder() / "medmnist"
    if (folder / file).is_file():
        return folder / file
    package: Any = require("medmnist", "medmnist")
    folder.mkdir(parents=True, exist_ok=True)
    kind = getattr(package, package.INFO[name]["python_class"])
    try:
        kind(split="train", download=True, root=str(folder), size=size)
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"{name} can't be downloaded ({reason}); put MedMNIST's .npz files in a folder and give --data FOLDER"
        ) from error
    return folder / file


# ---- the quick form ----------------------------------------------------------------------------------------------
def quick_config(
    *,
    methods: Sequence[str] = METHODS,
    sets: Sequence[str] | None = None,
    fractions: Sequence[float] = FRACTIONS,
    seeds: int = 1,
    encoders: Sequence[str] = ("resnet10-narrow", QUICK_VIT),
    initialisations: Sequence[str] = ("random", "supervised"),
    scorers: Sequence[str] = SCORERS,
    probe: str = "linear",
    steps: int = QUICK_STEPS,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The small grid on packaged images, for half an hour on two cores.

    The supervised initialisation is a classifier of the first set, trained here with the same budget, for the other
    sets; the second encoder and the union of the sets are measured with the first method or three alone.

    Args:
        methods: slugs.
        sets: of ``packaged.SETS``; those that can be had here if not given.
        fractions: shares of the labels.
        seeds: repetitions.
        encoders: the first is the main one.
        initialisations: of "random" and "supervised".
        scorers: of out-of-distribution detection.
        probe: linear, linear-sgd, knn or finetune.
        steps: optimiser steps of every run.
        say: told of sets that are missing.

    Raises:
        UserError: unknown names; a set asked for that can't be had.
    """
    _known("--initialisations", initialisations, ("random", "supervised"))
    files, missing = packaged.prepare(None if sets is None else list(sets))
    for name, reason in missing.items():
        if sets is not None:
            raise UserError(f"--sets {name}: {reason}")
        say(f"without {name}: {reason}")
    choices: dict[str, Any] = {"fractions": fractions, "seeds": seeds, "scorers": scorers, "probe": probe}
    return quick_grid(files, methods, encoders, initialisations, steps, **choices)


def quick_grid(
    files: Mapping[str, Path],
    methods: Sequence[str],
    encoders: Sequence[str],
    initialisations: Sequence[str],
    steps: int,
    **choices: Any,
) -> dict[str, Any]:
    """The small grid on given .npz files; see :func:`quick_config`."""
    judged = {name: f"{path}?channels=3" for name, path in files.items()}
    names, own = list(judged), [{"method": slug, "name": slug, "preset": "laptop"} for slug in methods]
    untrained, supervised = ({"method": slug, "name": slug, "preset": "laptop"} for slug in (UNTRAINED, "supervised"))
    shared: dict[str, Any] = {"name": "medmnist-quick", "sources": {**judged, UNION: names}}
    shared |= _common(judged=judged, **choices)
    share = [f for f in choices["fractions"] if f >= 0.1] or list(choices["fractions"])
    blocks: list[dict[str, Any]] = [
        {"methods": [*own, untrained], "data": names},
        {"methods": [supervised], "data": names, "fractions": share},
    ]
    if "supervised" in initialisations:
        start = supervised | {"data": names[0]}
        blocks.append({"methods": own[:1], "data": names[1:] or names, "initialisations": [start]})
    few = names[2:5] or names
    blocks += [{"methods": [*own[:1], untrained], "data": few, "encoders": [name]} for name in encoders[1:]]
    if len(names) > 1:
        blocks.append({"methods": own[:3], "data": [UNION]})
    options = {"steps": steps} | _QUICK
    title = "MedMNIST's protocol in the small, on images that packages ship"
    some = {"title": title, "encoders": [encoders[0]], "options": options, "limits": [1500, 500]}
    return shared | some | {"blocks": blocks}
