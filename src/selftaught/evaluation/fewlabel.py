"""Label efficiency: how good a linear probe is with few labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from selftaught._words import listed
from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, Coded, code_labels, feature_pair, join_notes, stratified_order
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.classification import auc_ovr, confusion_matrix, confusion_statistics
from selftaught.evaluation.linear import HOLD_OUT_FROM
from selftaught.evaluation.logistic import moments
from selftaught.evaluation.probe import STRENGTHS, fit_probe
from selftaught.evaluation.result import Number, Result

__all__ = ["fewlabel", "subset"]

MEASURES = ("accuracy", "balanced_accuracy", "auc")


@protocol("fewlabel", "logistic regression with 1, 5, 10 ... labels per class and 1, 10, 100 %", inputs="split")
def fewlabel(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    per_class: Sequence[int] = (1, 2, 5, 10, 20, 50),
    fractions: Sequence[float] = (0.01, 0.1, 1.0),
    seeds: int | Sequence[int] = 5,
    strengths: Sequence[float] = STRENGTHS,
) -> Result:
    """Logistic regression on stratified subsets of the labels, for several seeds: a curve of accuracy against labels.

    A seed orders the samples of each class once; every subset is a prefix of that order, so that within a seed the
    subsets are nested. The features are standardised by all training features (their labels are not needed for it), the
    regularisation is chosen by cross-validation inside the subset (at most five folds). Where every class has one
    sample nothing can be held out, and C = 0.01 serves.

    Args:
        train_x: ``(n, d)``; images are flattened, which makes the raw-input baseline.
        train_y: ``(n,)`` or ``(n, 1)`` class indices.
        test_x: ``(m, d)``.
        test_y: ``(m,)`` or ``(m, 1)``; the whole test set serves every subset.
        per_class: labels per class; a class that has fewer gives all that it has, with a note.
        fractions: shares of every class, in (0, 1], at least one sample each. The full set has no subset to draw: one
            fit, interval over test items.
        seeds: how many (0, 1, ...) or which.
        strengths: grid of C, as ``linear``.

    Returns:
        ``Result`` "fewlabel": ``accuracy@10`` per size and ``accuracy@1%`` per fraction: mean and Student's interval
        over seeds. Figure ``curve``: lists ``per_class`` and ``fractions`` of points with ``n`` (labels per class, or
        the fraction), ``labels`` (in all), and accuracy, balanced accuracy and one-vs-rest AUC as numbers; ``chance``
        is the accuracy of always naming the largest class.

    Raises:
        UserError: NaN features, lengths that do not match, a single class, sizes or fractions out of range, no seed.
    """
    wanted = _checked_seeds(seeds, per_class, fractions)
    train, test = feature_pair(train_x, test_x)
    coded = code_labels(train_y, test_y, len(train), len(test))
    statistics = moments(train)
    smallest, largest = (int(f(np.unique(coded.train, return_counts=True)[1])) for f in (np.min, np.max))
    numbers: dict[str, Number] = {}
    known: dict[tuple[int, ...], dict[str, Any]] = {}
    curve: dict[str, Any] = {
        "per_class": [],
        "fractions": [],
        "chance": float(np.bincount(coded.test).max() / len(test)),
    }
    skipped = [n for n in per_class if n > largest]
    for kind, sizes in (("per_class", per_class), ("fractions", fractions)):
        for size in sizes:
            if kind == "per_class" and size in skipped:
                continue
            whole = size == (largest if kind == "per_class" else 1)
            key = _drawn(coded.train, kind, size)
            if key not in known:
                drawn = wanted[:1] if whole else wanted
                known[key] = _point(train, test, coded, statistics, kind, size, drawn, strengths)
            point = known[key] | {"n": size}
            curve[kind].append({key: v.to_dict() if isinstance(v, Number) else v for key, v in point.items()})
            numbers["accuracy@" + (f"{size:g}" if kind == "per_class" else f"{100 * size:g}%")] = point["accuracy"]
    if not numbers:
        raise UserError(
            f"per_class: {list(per_class)}, but no class has more than {largest} samples; pass smaller sizes"
        )
    note = join_notes(coded.note, *_size_notes(per_class, smallest, largest))
    return Result("fewlabel", numbers, {"curve": curve}, note)


def _checked_seeds(seeds: int | Sequence[int], per_class: Sequence[int], fractions: Sequence[float]) -> tuple[int, ...]:
    wanted = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not wanted:
        raise UserError("seeds: none; pass at least 1")
    if any(n < 1 for n in per_class) or any(not 0 < f <= 1 for f in fractions):
        raise UserError("per_class must be at least 1 and fractions in (0, 1]")
    return wanted


def _size_notes(per_class: Sequence[int], smallest: int, largest: int) -> tuple[str, str]:
    """What to say of sizes that some classes, or all, are too small for."""
    short = [n for n in per_class if smallest < n < largest]
    skipped = [n for n in per_class if n > largest]
    return (
        f"at {listed(short)} per class, some classes have fewer (the smallest {smallest})" if short else "",
        f"{listed(skipped)} per class left out: no class has more samples" if skipped else "",
    )


def subset(
    labels: np.ndarray, *, per_class: int | None = None, fraction: float | None = None, seed: int = 0
) -> np.ndarray:
    """A stratified subset, nested in the seed: a smaller size or fraction with the same seed is contained in a larger.

    Args:
        labels: ``(n,)``.
        per_class: samples of each class (all of a smaller class); or
        fraction: share of each class, rounded, at least one sample.
        seed: orders the samples of each class.

    Returns:
        Sorted indices, int64.

    Raises:
        UserError: both or neither given.
    """
    if (per_class is None) == (fraction is None):
        raise UserError("subset: pass either per_class or fraction")
    chosen = []
    for members in stratified_order(labels, np.random.default_rng(seed)):
        count = per_class if per_class is not None else max(1, round((fraction or 0.0) * len(members)))
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))


def _drawn(labels: np.ndarray, kind: str, size: float) -> tuple[int, ...]:
    """Samples of each class in a subset: two sizes that draw as many of each are the same subset."""
    picked = subset(labels, per_class=int(size)) if kind == "per_class" else subset(labels, fraction=size)
    return tuple(np.bincount(labels[picked]).tolist())


def _point(
    train: Tensor,
    test: Tensor,
    coded: Coded,
    statistics: tuple[Tensor, Tensor],
    kind: str,
    size: float,
    seeds: tuple[int, ...],
    strengths: Sequence[float],
) -> dict[str, Any]:
    """One size of the curve over the seeds; on the full training set the interval is over test items."""
    measured: dict[str, list[float]] = {name: [] for name in MEASURES}
    right, labels = np.empty(0), []
    for seed in seeds:
        if kind == "per_class":
            picked = subset(coded.train, per_class=int(size), seed=seed)
        else:
            picked = subset(coded.train, fraction=size, seed=seed)
        most = int(np.bincount(coded.train[picked]).max())
        probe = fit_probe(
            train[picked],
            coded.train[picked],
            test,
            len(coded.classes),
            strengths=strengths,
            folds=min(5, most) if most > 1 else 0,
            use_folds=1 if len(picked) >= HOLD_OUT_FROM else None,
            rng=np.random.default_rng([seed, len(picked)]),
            statistics=statistics,
        )
        predicted = probe.scores.argmax(1)
        right = predicted == coded.test
        confusion = confusion_matrix(coded.test, predicted, len(coded.classes))
        summary = confusion_statistics(confusion.sum(1), confusion.sum(0), np.diag(confusion))
        measured["accuracy"].append(float(right.mean()))
        measured["balanced_accuracy"].append(summary["balanced_accuracy"])
        measured["auc"].append(auc_ovr(probe.scores, coded.test).mean)
        labels.append(len(picked))
    point: dict[str, Any] = {"n": size, "labels": int(np.mean(labels))}
    point |= {name: Number.of(values, within=(0.0, 1.0)) for name, values in measured.items()}
    return point | {"accuracy": Number.bootstrap(right)} if labels[0] == len(train) else point
