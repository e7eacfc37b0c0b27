"""From predicted classes or class scores to the numbers that the sheets report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._inputs import as_features, as_labels
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["classify"]

RESAMPLES = 500


@protocol("classify", "accuracy of the model's own classes", inputs="scores")
def classify(scores: Any, truth: Any) -> Result:
    """Judge a classifier by its own scores.

    Args:
        scores: ``(n, k)`` logits or probabilities, the larger the likelier.
        truth: ``(n,)`` labels in 0 .. k - 1.

    Returns:
        the numbers and figures of :func:`judge` with one-vs-rest AUC of the softmax of the scores.

    Raises:
        UserError: shapes that don't fit, a label that the classifier does not know.
    """
    logits = as_features(scores, "scores")
    labels = as_labels(truth, len(logits), "truth")
    count = logits.shape[1]
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= count:
        raise UserError(f"truth: labels must lie in 0 .. {count - 1}, the classes that the scores are of")
    probabilities = logits.double().softmax(1).cpu().numpy()
    numbers, figures = judge(probabilities, labels.astype(np.int64), np.arange(count))
    return Result("classify", numbers, figures)


def judge(
    scores: np.ndarray,
    truth: np.ndarray,
    classes: np.ndarray,
    *,
    auc: Literal["ovr", "ovo", "none"] = "ovr",
    class_values: Sequence[float] | None = None,
) -> tuple[dict[str, Number], dict[str, Any]]:
    """Accuracy, balanced accuracy, AUC, F1 and kappa of a classifier, with intervals over the test items.

    Args:
        scores: ``(n, k)``, the larger the likelier; the arg-max is the prediction. A class that the classifier does
            not know has ``-inf``.
        truth: ``(n,)`` indices into ``classes``.
        classes: ``(k,)`` the labels.
        auc: macro one-vs-rest, one-vs-one (Hand and Till 2001) or none (where scores are votes).
        class_values: the quantity that each class stands for (beats per minute, steps), ``(k,)``; adds MAE, RMSE,
            MAPE and Pearson's rho of the arg-max class read as a number (frame-projections sheet).

    Returns:
        ``(numbers, figures)``. Balanced accuracy is the mean recall over the classes that the test set has; F1 is
        averaged over the classes that occur in truth or prediction. ``top5`` appears from 11 classes on.
        Figures: ``confusion`` (rows true, columns predicted) and ``per_class`` recall.
    """
    predicted = scores.argmax(1)
    confusion = confusion_matrix(truth, predicted, len(classes))
    numbers = {"accuracy": Number.bootstrap(predicted == truth)}
    if auc != "none" and len(classes) > 10:
        ranked = np.argpartition(-scores, 5, axis=1)[:, :5]
        numbers["top5"] = Number.bootstrap((ranked == truth[:, None]).any(1))
    numbers |= _confusion_numbers(confusion)
    if auc != "none":
        numbers["auc"] = auc_ovr(scores, truth) if auc == "ovr" else auc_ovo(scores, truth)
    if class_values is not None:
        if len(class_values) != len(classes):
            raise UserError(f"class_values: {len(class_values)} values for {len(classes)} classes; pass one per class")
        values = np.asarray(class_values, dtype=np.float64)
        numbers |= error_numbers(values[predicted], values[truth])
    return numbers, _figures(confusion, classes)


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, k: int) -> np.ndarray:
    """``(k, k)`` counts; rows are the true class, columns the predicted one."""
    return np.bincount(truth * k + predicted, minlength=k * k).reshape(k, k)


def confusion_statistics(rows: np.ndarray, columns: np.ndarray, hits: np.ndarray) -> dict[str, float]:
    """Balanced accuracy, macro F1, weighted F1 and Cohen's kappa from the margins of a confusion matrix.

    Args:
        rows: how often each class is true, ``(k,)``.
        columns: how often each class is predicted, ``(k,)``.
        hits: the diagonal, ``(k,)``.
    """
    n = rows.sum()
    present, either = rows > 0, rows + columns > 0
    f1 = 2 * hits / np.maximum(rows + columns, 1)
    chance = float((rows / n) @ (columns / n))
    return {
        "balanced_accuracy": float((hits[present] / rows[present]).mean()),
        "f1": float(f1[either].mean()),
        "weighted_f1": float(f1 @ rows / n),
        "kappa": float((hits.sum() / n - chance) / (1 - chance)) if chance < 1 else float("nan"),
    }


def _confusion_numbers(confusion: np.ndarray) -> dict[str, Number]:
    """``confusion_statistics`` with bootstrap intervals.

    Drawing n test items with replacement draws the cells of the matrix from a multinomial: same bootstrap, no loop
    over items.
    """
    k, n = len(confusion), int(confusion.sum())
    cells = np.flatnonzero(confusion)
    row, column = cells // k, cells % k
    point = confusion_statistics(confusion.sum(1), confusion.sum(0), np.diag(confusion))
    if n == 1:
        return {key: Number(value, values=(value,)) for key, value in point.items()}
    draws: dict[str, list[float]] = {key: [] for key in point}
    diagonal = row == column
    for counts in np.random.default_rng(0).multinomial(n, confusion.ravel()[cells] / n, size=RESAMPLES):
        margins = (np.bincount(index, counts[keep], k) for index, keep in
                   ((row, slice(None)), (column, slice(None)), (row[diagonal], diagonal)))  # fmt: skip
        for key, value in confusion_statistics(*margins).items():
            draws[key].append(value)
    return {key: _interval(point[key], np.array(values)) for key, values in draws.items()}


def _interval(point: float, draws: np.ndarray) -> Number:
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(point) or not len(finite):
        return Number(point, values=(point,))
    low, high = np.quantile(finite, [0.025, 0.975])
    return Number(point, float(low), float(high), (point,))


def auc_ovr(scores: np.ndarray, truth: np.ndarray) -> Number:
    """Macro one-vs-rest area under the ROC curve, over the classes that the test set has.

    The interval is DeLong's (1988) carried over to the mean of several areas: the variance is the sum of the squared
    influences of the items, so that one item's part in several classes is counted as one draw.

    Args:
        scores: ``(n, k)``.
        truth: ``(n,)`` indices below k.

    Returns:
        NaN when the test set has a single class.
    """
    present = [c for c in np.unique(truth) if np.isfinite(scores[:, c]).all() and (truth != c).any()]
    parts = [(scores[:, c], truth == c, np.ones(len(truth), dtype=bool)) for c in present]
    return _mean_area(parts, len(truth))


def auc_ovo(scores: np.ndarray, truth: np.ndarray) -> Number:
    """Macro one-vs-one area (Hand and Till 2001): over ordered pairs (a, b), score a tells a from b. As ``auc_ovr``."""
    present = [c for c in np.unique(truth) if np.isfinite(scores[:, c]).all()]
    parts = [(scores[:, a], truth == a, (truth == a) | (truth == b)) for a in present for b in present if a != b]
    return _mean_area(parts, len(truth))


def _mean_area(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], n: int) -> Number:
    if not parts:
        return Number(float("nan"), values=(float("nan"),))
    influence, areas = np.zeros(n), []
    for score, positive, used in parts:
        score, positive = score[used], positive[used]
        n_pos, n_neg = int(positive.sum()), int((~positive).sum())
        overall, place = _midranks(score), np.empty(len(score))
        place[positive] = (overall[positive] - _midranks(score[positive])) / n_neg
        place[~positive] = 1 - (overall[~positive] - _midranks(score[~positive])) / n_pos
        area = float(place[positive].mean())
        influence[used] += (place - area) / np.where(positive, n_pos, n_neg)
        areas.append(area)
    mean, half = float(np.mean(areas)), 1.96 * float(np.linalg.norm(influence)) / len(parts)
    return Number(mean, max(0.0, mean - half), min(1.0, mean + half), (mean,))


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values share the mean of theirs."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[position]


def error_numbers(predicted: np.ndarray, truth: np.ndarray) -> dict[str, Number]:
    """MAE, RMSE, Pearson's rho and (where no target is 0) MAPE in per cent, with bootstrap intervals over items.

    Args:
        predicted: ``(n,)``.
        truth: ``(n,)`` in the same unit.
    """
    error = np.abs(predicted - truth)
    pair = np.stack([predicted, truth], 1)
    numbers = {
        "mae": Number.bootstrap(error),
        "rmse": Number.bootstrap(error**2, lambda e: float(np.sqrt(e.mean())), resamples=RESAMPLES),
        "rho": Number.bootstrap(pair, lambda rows: pearson(rows[:, 0], rows[:, 1]), resamples=RESAMPLES),
    }
    if (truth != 0).all():
        numbers["mape"] = Number.bootstrap(100 * error / np.abs(truth))
    return numbers


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two ``(n,)`` arrays; NaN when one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def _figures(confusion: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    support = confusion.sum(1)
    recall = np.where(support > 0, np.diag(confusion) / np.maximum(support, 1), np.nan)
    return {
        "confusion": {"classes": classes, "matrix": confusion},
        "per_class": {"classes": classes, "accuracy": recall, "support": support},
    }
