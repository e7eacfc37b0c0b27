"""Whether the weights of labels tell wrong labels from right ones, where it is known which are wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.ood import detection
from selftaught.evaluation.result import Number, Result

__all__ = ["label_noise"]


@protocol("label-noise", "whether the weights of labels tell wrong ones from right ones", inputs="weights")
def label_noise(
    weights: np.ndarray, wrong: np.ndarray, *, threshold: float = 0.5, others: Mapping[str, np.ndarray] | None = None
) -> Result:
    """How well small weights mark wrong labels.

    Args:
        weights: ``(n,)`` how far each label is to be trusted.
        wrong: ``(n,)`` True where the label is known to be wrong.
        threshold: a label of a smaller weight counts as filtered out, default 0.5.
        others: further scores ``(n,)``, larger for labels to be trusted; each gives an ``auc_NAME``.

    Returns:
        ``auc``, the chance that a wrong label weighs less than a right one (interval of DeLong); ``average_precision``
        of finding the wrong ones; ``recall``, ``precision`` and ``false_positive_rate`` of what is filtered out;
        ``found_in_first``, the share of wrong ones among the lightest, as many as there are wrong ones.

    Raises:
        UserError: no wrong or no right label; sizes that differ; a weight that is not finite.
    """
    weights, wrong = np.asarray(weights, dtype=np.float64), np.asarray(wrong, dtype=bool)
    if weights.shape != wrong.shape or weights.ndim != 1:
        raise UserError(f"weights {weights.shape} and wrong {wrong.shape} must both be (n,)")
    if not np.isfinite(weights).all():
        raise UserError("weights: all must be finite")
    if wrong.all() or not wrong.any():
        raise UserError("label-noise needs labels that are known to be wrong beside right ones")
    found = detection(-weights[~wrong], -weights[wrong], resamples=200)
    out = weights < threshold
    first = np.argsort(weights, kind="stable")[: int(wrong.sum())]
    numbers = {
        "auc": found["auroc"],
        "average_precision": found["aupr"],
        "recall": Number.of(float(out[wrong].mean())),
        "precision": Number.of(float(wrong[out].mean()) if out.any() else 0.0),
        "false_positive_rate": Number.of(float(out[~wrong].mean())),
        "found_in_first": Number.of(float(wrong[first].mean())),
    }
    for name, scores in (others or {}).items():
        scores = np.asarray(scores, dtype=np.float64)
        if scores.shape != wrong.shape:
            raise UserError(f"scores of {name} {scores.shape} for {wrong.shape} labels")
        numbers[f"auc_{name}"] = detection(-scores[~wrong], -scores[wrong], resamples=200)["auroc"]
    better = {"false_positive_rate": "low"}
    return Result(
        "label-noise", numbers, figures={"better": better}, note=f"{int(wrong.sum())} of {len(wrong)} labels are wrong"
    )
