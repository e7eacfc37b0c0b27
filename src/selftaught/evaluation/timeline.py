"""Moments of a recording in groups that look alike: k-means on their embeddings, the number of groups by silhouette."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._inputs import as_features
from selftaught.evaluation.neighbours import normalise

__all__ = ["moments"]


def moments(x: Any, most: int = 7, *, seed: int = 0) -> np.ndarray:
    """Which group each moment belongs to.

    Rows are scaled to unit length and clustered by k-means for 2 to ``most`` groups; the number whose mean silhouette
    (Rousseeuw 1987) is largest is taken. Rows that are all alike are one group.

    Args:
        x: (n, d) embeddings in the order of time.
        most: groups at most (default 7).
        seed: of k-means (default 0).

    Returns:
        (n,) int64, groups numbered from 0 as they first appear.

    Raises:
        UserError: NaN, fewer than three rows, ``most`` below 2.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    features = as_features(x)
    if len(features) < 3 or most < 2:
        raise UserError(
            f"moments: {len(features)} rows in at most {most} groups; pass three rows and two groups or more"
        )
    rows = normalise(features).cpu().numpy()
    distinct = len(np.unique(rows.round(5), axis=0))
    best, found = -np.inf, np.zeros(len(rows), np.int64)
    for k in range(2, min(most, distinct, len(rows) - 1) + 1):
        groups = KMeans(k, n_init=4, random_state=seed).fit_predict(rows)
        score = float(silhouette_score(rows, groups))
        if score > best:
            best, found = score, groups
    _, first, which = np.unique(found, return_index=True, return_inverse=True)
    rank: np.ndarray = np.argsort(np.argsort(first))
    return rank[which.reshape(-1)].astype(np.int64)
