"""Anomalies by distance: each class in turn is the normal one, known from its training samples alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._inputs import as_labels, feature_pair
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.ood import detection, knn_distance
from selftaught.evaluation.result import Number, Result

__all__ = ["anomaly"]


@protocol("anomaly", "each class as the normal one: other classes by distance to the k-th neighbour", inputs="split")
def anomaly(train_x: Any, train_y: Any, test_x: Any, test_y: Any, *, k: int = 5) -> Result:
    """How well the distance to normal training samples tells test samples of other classes from normal ones.

    For every class c of the training part: a test sample's score is its Euclidean distance to the k-th nearest training
    sample of c, features scaled to unit length; samples of c are normal, all others anomalies. Where the training part
    has one class ("normal/"), that is the only turn.

    Args:
        train_x: ``(n, d)`` features.
        train_y: ``(n,)`` classes.
        test_x: ``(m, d)`` features.
        test_y: ``(m,)`` classes, of the same numbers.
        k: neighbour whose distance counts (default 5, at most as many as the class has).

    Returns:
        ``Result`` "anomaly": ``auroc``, ``aupr`` (anomalies as positives) and ``fpr95`` (share of the anomalies that
        pass where 95 % of the normal samples do), each the mean over the classes with the classes as its values;
        figure ``per_class``: class -> auroc.

    Raises:
        UserError: shapes that don't fit, NaN, no class of the training part with normal and other test samples.
    """
    x, tx = feature_pair(train_x, test_x)
    y, ty = as_labels(train_y, len(x), "train labels"), as_labels(test_y, len(tx), "test labels")
    if len(np.unique(ty)) < 2:
        raise UserError(f"anomaly: the test part has only class {ty[0]}; give normal samples and others")
    found: dict[int, dict[str, Number]] = {}
    for c in np.unique(y).tolist():
        normal = ty == c
        if normal.any() and not normal.all():
            score = knn_distance(x[y == c], k=k)(tx)
            found[int(c)] = detection(score[normal], score[~normal], resamples=0)
    if not found:
        raise UserError("anomaly: the test part needs samples of a class of the training part, and others besides")
    names = ("auroc", "aupr", "fpr95")
    numbers = {n: Number.of([one[n].mean for one in found.values()], within=(0.0, 1.0)) for n in names}
    figures = {"per_class": {str(c): one["auroc"].mean for c, one in found.items()}}
    return Result("anomaly", numbers, figures, f"each of {len(found)} classes in turn is the normal one, k {k}")
