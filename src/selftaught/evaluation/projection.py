"""A map of the embeddings in the plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features
from selftaught.evaluation.neighbours import normalise

__all__ = ["Projection", "project"]


@dataclass(frozen=True)
class Projection:
    """Where the samples lie in the plane.

    Args:
        coordinates: ``(m, 2)`` float32, centred, the larger side within [-1, 1].
        index: ``(m,)`` int64, which samples these are, ascending.
        method: "tsne" or "pca", as it was done.
    """

    coordinates: np.ndarray
    index: np.ndarray
    method: str


def project(
    x: Array,
    *,
    method: Literal["tsne", "pca"] = "tsne",
    limit: int = 2000,
    perplexity: float = 30.0,
    components: int = 50,
    unit: bool = True,
    seed: int = 0,
) -> Projection:
    """Map embeddings to two dimensions: PCA, then t-SNE (van der Maaten and Hinton 2008).

    Args:
        x: ``(n, d)`` features.
        method: "tsne", or "pca" for the first two components alone.
        limit: more samples than this are subsampled, default 2000.
        perplexity: of t-SNE; clipped to a third of the samples.
        components: of the PCA that goes before t-SNE.
        unit: scale the rows to unit length first, default on.
        seed: of the subsample and the solver: the same input gives the same map.

    Returns:
        ``Projection``. Fewer than 8 samples, or embeddings that are all the same, fall back to PCA.

    Raises:
        UserError: NaN features, or an unknown method.
    """
    if method not in ("tsne", "pca"):
        raise UserError(f"method: no {method!r}; tsne or pca")
    features = as_features(x)
    index = np.sort(np.random.default_rng(seed).permutation(len(features))[:limit])
    rows = (normalise(features) if unit else features).cpu().double().numpy()[index]
    rows = _principal(rows, components)
    if method == "pca" or len(rows) < 8 or np.ptp(rows, axis=0).max() < 1e-9:
        flat = np.zeros((len(rows), 2))
        flat[:, : rows.shape[1]] = rows[:, :2]
        return Projection(_fit_square(flat), index, "pca")
    from sklearn.manifold import TSNE

    start = rows[:, :2] if rows.shape[1] > 1 else np.repeat(rows, 2, axis=1)
    start = start / max(start[:, 0].std(), 1e-12) * 1e-4
    solver = TSNE(perplexity=min(perplexity, (len(rows) - 1) / 3), init=start, max_iter=500, random_state=seed)
    return Projection(_fit_square(solver.fit_transform(rows.astype(np.float32))), index, "tsne")


def _principal(rows: np.ndarray, components: int) -> np.ndarray:
    """Scores on the first components, signs fixed so that the largest weight of each is positive."""
    centred = rows - rows.mean(0)
    wide = centred.shape[0] < centred.shape[1]
    energy, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    top = vectors[:, ::-1][:, :components]
    scores = top * np.sqrt(np.maximum(energy[::-1][:components], 0)) if wide else centred @ top
    return scores * np.where(top[np.abs(top).argmax(0), np.arange(top.shape[1])] < 0, -1, 1)


def _fit_square(points: np.ndarray) -> np.ndarray:
    points = points - (points.max(0) + points.min(0)) / 2
    return (points / max(float(np.abs(points).max()), 1e-12)).astype(np.float32)
