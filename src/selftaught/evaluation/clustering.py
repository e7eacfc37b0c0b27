"""Do clusters of the embeddings match the classes?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, as_labels
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.classification import confusion_matrix
from selftaught.evaluation.neighbours import normalise
from selftaught.evaluation.result import Number, Result

__all__ = ["clustering"]


@protocol("clustering", "k-means against the classes: NMI, ARI, matched accuracy", inputs="labelled")
def clustering(
    x: Array, y: Array, *, k: int | None = None, seeds: int | Sequence[int] = 5, unit: bool = True
) -> Result:
    """k-means on the embeddings, compared with the classes.

    Args:
        x: ``(n, d)`` features.
        y: ``(n,)`` class indices.
        k: clusters; as many as there are classes if not given.
        seeds: how many starts of k-means (0, 1, ...) or which; each a value of the numbers.
        unit: scale the rows to unit length first, default on.

    Returns:
        ``Result`` "clustering": ``nmi`` (arithmetic), ``ari`` and ``accuracy`` under the best one-to-one match of
        clusters to classes (Hungarian), mean and interval over seeds.

    Raises:
        UserError: NaN features, a single class, more clusters than samples, no seed.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    features = as_features(x)
    labels = as_labels(y, len(features))
    classes, index = np.unique(labels, return_inverse=True)
    wanted = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    k = len(classes) if k is None else k
    if len(classes) < 2 or not wanted:
        raise UserError("clustering: needs at least two classes and one seed")
    if not 2 <= k <= len(features):
        raise UserError(f"k: {k} clusters of {len(features)} samples; pass 2 or more, at most one per sample")
    rows = (normalise(features) if unit else features).cpu().numpy()
    values: dict[str, list[float]] = {"nmi": [], "ari": [], "accuracy": []}
    size = max(k, len(classes))
    for seed in wanted:
        cluster = KMeans(k, n_init=1, random_state=seed).fit_predict(rows).astype(np.int64)
        overlap = confusion_matrix(cluster, index, size)
        matched = overlap[linear_sum_assignment(-overlap)].sum()
        values["nmi"].append(float(normalized_mutual_info_score(index, cluster)))
        values["ari"].append(float(adjusted_rand_score(index, cluster)))
        values["accuracy"].append(float(matched / len(rows)))
    lowest = {"ari": -1.0}
    numbers = {name: Number.of(v, within=(lowest.get(name, 0.0), 1.0)) for name, v in values.items()}
    return Result("clustering", numbers)
