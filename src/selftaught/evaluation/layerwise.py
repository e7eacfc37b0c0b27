"""Which layer to keep? Probes on the features of every layer, before and after a head, and their worst group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, as_labels, code_labels, feature_pair, join_notes
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.classification import judge
from selftaught.evaluation.linear import HOLD_OUT_FROM, linear
from selftaught.evaluation.neighbours import knn
from selftaught.evaluation.probe import STRENGTHS, fit_probe
from selftaught.evaluation.result import Number, Result

__all__ = ["layer_features", "layer_names", "layerwise", "stack_layers", "worst_group"]

PROBES = ("linear", "linear-raw", "knn")


@protocol("layerwise", "linear probe and k-NN on every layer, the best one named", inputs="layers")
def layerwise(
    train: Mapping[str, Array],
    train_y: Array,
    test: Mapping[str, Array],
    test_y: Array,
    *,
    probes: Sequence[str] = ("linear", "knn"),
    k: int = 20,
    seed: int = 0,
) -> Result:
    """Probe every layer of a network (the protocol of the projection-head study, arXiv 2403.11391).

    A linear probe on standardised features can't see a diagonal reweighting: h and w * h are the same to it. The
    probe "linear-raw" only centres the features and divides them by one common deviation; k-NN sees the weights, too.

    Args:
        train: layer name -> ``(n, d)`` features, from the input to the output; all of the same samples.
        train_y: ``(n,)`` class indices.
        test: the same layers -> ``(m, d)``.
        test_y: ``(m,)``.
        probes: some of "linear" (logistic regression on standardised features, see ``linear``), "linear-raw" (the same
            without each feature's own scale) and "knn".
        k: neighbours of k-NN.
        seed: of the hold-out.

    Returns:
        ``Result`` "layerwise": the accuracy ``"LAYER PROBE"`` of every layer and probe, with an interval over test
        items, and ``"best PROBE"``, that of the best layer; figure ``layers``: ``names``, ``widths``, ``best`` (layer
        of each probe), and per probe the lists ``mean``, ``low``, ``high``.

    Raises:
        UserError: no layer, other layers in ``test`` than in ``train``, an unknown probe, and what the probes refuse.
    """
    if not train or list(train) != list(test):
        raise UserError(f"layers: {list(train)} to train and {list(test)} to test; give the same, at least one")
    unknown = [name for name in probes if name not in PROBES]
    if unknown or not probes:
        raise UserError(f"probes: {', '.join(unknown) or 'none'}; choose from {', '.join(PROBES)}")
    numbers: dict[str, Number] = {}
    figure: dict[str, Any] = {"names": list(train), "widths": [as_features(x).shape[1] for x in train.values()]}
    figure["best"], notes = {}, []
    for probe in probes:
        for layer in train:
            result = _probe(probe, (train[layer], train_y, test[layer], test_y), k, seed)
            numbers[f"{layer} {probe}"] = result["accuracy"]
            notes.append(result.note)
        found = [numbers[f"{layer} {probe}"] for layer in train]
        best = int(np.argmax([number.mean for number in found]))
        figure["best"][probe] = list(train)[best]
        figure[probe] = {end: [getattr(number, end) for number in found] for end in ("mean", "low", "high")}
    headline = {f"best {probe}": numbers[f"{figure['best'][probe]} {probe}"] for probe in probes}
    return Result("layerwise", headline | numbers, {"layers": figure}, join_notes(*dict.fromkeys(notes)))


def _probe(name: str, arrays: tuple[Array, Array, Array, Array], k: int, seed: int) -> Result:
    if name == "knn":
        return knn(*arrays, k=k)
    return linear(*arrays, seed=seed) if name == "linear" else _linear_raw(*arrays, seed=seed)


def _linear_raw(train_x: Array, train_y: Array, test_x: Array, test_y: Array, *, seed: int) -> Result:
    train, test = feature_pair(train_x, test_x)
    coded = code_labels(train_y, test_y, len(train), len(test))
    mean = train.mean(0)
    common = (train - mean).square().mean().sqrt().clamp_min(1e-30)
    probe = fit_probe(
        train,
        coded.train,
        test,
        len(coded.classes),
        folds=5 if np.bincount(coded.train).max() > 1 else 0,
        use_folds=1 if len(train) >= HOLD_OUT_FROM else None,
        rng=np.random.default_rng(seed),
        statistics=(mean, common.expand_as(mean)),
    )
    numbers, figures = judge(probe.scores, coded.test, coded.classes, auc="none")
    return Result("linear-raw", numbers, figures, coded.note)


def worst_group(
    train_x: Array,
    train_y: Array,
    train_groups: Array,
    test_x: Array,
    test_y: Array,
    test_groups: Array,
    *,
    draws: int = 10,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> Result:
    """Last layer retrained on a group-balanced subset, and its accuracy on the group that it serves worst.

    Deep feature reweighting (Kirichenko et al., ICLR 2023), as the projection-head study judges h and z: all groups
    give as many samples as the smallest one has; logits are averaged over several such draws.

    Args:
        train_x: ``(n, d)`` features, of validation samples if the encoder has seen the training labels.
        train_y: ``(n,)`` class indices.
        train_groups: ``(n,)`` group of each sample (class and background, ...).
        test_x: ``(m, d)``.
        test_y: ``(m,)``.
        test_groups: ``(m,)``.
        draws: balanced subsets, default 10.
        strengths: grid of C, as ``linear``.
        seed: of the draws.

    Returns:
        ``Result`` "worst-group": ``worst_group`` and ``average`` (mean over all test samples) accuracy with intervals
        over test items, ``group G`` of each group.

    Raises:
        UserError: lengths that do not match, a single class, no draws.
    """
    train, test = feature_pair(train_x, test_x)
    coded = code_labels(train_y, test_y, len(train), len(test))
    groups = as_labels(train_groups, len(train), "train groups")
    judged = as_labels(test_groups, len(test), "test groups")
    if draws < 1:
        raise UserError(f"draws: {draws}; the last layer is retrained at least once")
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    smallest = min(map(len, members))
    scores = np.zeros((len(test), len(coded.classes)))
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        rows = np.sort(np.concatenate([rng.permutation(some)[:smallest] for some in members]))
        probe = fit_probe(train[rows], coded.train[rows], test, len(coded.classes), strengths=strengths,
                          folds=min(5, smallest), rng=rng)  # fmt: skip
        scores += np.exp(probe.scores) / draws
    right = (scores.argmax(1) == coded.test).astype(float)
    each = {f"group {g}": Number.bootstrap(right[judged == g]) for g in np.unique(judged)}
    worst = min(each.values(), key=lambda number: number.mean)
    return Result("worst-group", {"worst_group": worst, "average": Number.bootstrap(right), **each}, note=coded.note)


# ---- tapping a network -------------------------------------------------------------------------------------------
def layer_names(network: nn.Module) -> list[str]:
    """Names of the layers worth a probe, in order: the stages that timm lists, else the blocks of a network.

    Args:
        network: an image or series encoder, or any module.
    """
    model = network.get_submodule("model") if "model" in dict(network.named_children()) else network
    prefix = "model." if model is not network else ""
    listed = getattr(model, "feature_info", None)
    if isinstance(listed, list) and listed:
        known = dict(model.named_modules())
        return [prefix + info["module"] for info in listed if info["module"] in known]
    names = []
    for name, child in model.named_children():
        parts = list(child.named_children()) if isinstance(child, nn.Sequential) else []
        names += [f"{prefix}{name}.{part}" for part, _ in parts] if len(parts) > 1 else [prefix + name]
    return names


def layer_features(
    network: nn.Module, x: Tensor, names: Sequence[str] | None = None, *, grid: tuple[int, int] = (1, 1)
) -> dict[str, Tensor]:
    """Run a network once and keep what its layers give, averaged over places.

    Args:
        network: the encoder.
        x: its input.
        names: submodules; default ``layer_names(network)``.
        grid: rows and columns of cells that maps are averaged over, default one cell; SEER's best-layer table has
            (2, 1) and (3, 1), which keep some of where things are.

    Returns:
        name -> ``(N, d)`` in the order in which the layers ran, and last ``"h"``, the network's own output. Maps
        (N, C, h, w) and scattering coefficients (N, C, K, h, w) are averaged over the pixels of each cell (d = C x
        cells, C K x cells), tokens (N, T, C) and series (N, C, T) over T.

    Raises:
        UserError: the network has no submodule of that name.
    """
    tokens = any("patch_embed" in name for name, _ in network.named_modules())
    with _tapped(network, layer_names(network) if names is None else names) as found:
        h = network(x)
    return {name: _pooled(value, tokens, grid) for name, value in found.items()} | {"h": h}


@contextmanager
def _tapped(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    modules = dict(network.named_modules())
    missing = [name for name in names if name not in modules]
    if missing:
        raise UserError(
            f"layers: no {missing[0]!r} in {type(network).__name__}; it has {', '.join(layer_names(network))}"
        )
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[name] = output

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _pooled(value: Tensor, tokens: bool, grid: tuple[int, int]) -> Tensor:
    if value.dim() <= 2:
        return value
    if value.dim() == 3:
        return value.mean(1 if tokens else 2)
    maps = value.flatten(1, value.dim() - 3)
    return maps.mean((-2, -1)) if grid == (1, 1) else adaptive_avg_pool2d(maps, grid).flatten(1)


def stack_layers(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, np.ndarray]:
    """Layers of many batches -> one float32 array per layer.

    Args:
        parts: what `layer_features` gave for each batch.

    Raises:
        UserError: no batch.
    """
    if not parts:
        raise UserError("layers: no batch; give at least one sample")
    return {name: torch.cat([part[name].detach().float() for part in parts]).cpu().numpy() for name in parts[0]}
