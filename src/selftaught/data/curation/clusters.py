"""k-means for many points: Lloyd's iterations with sums in float64, clusters of clusters, resampling.

level 1 clusters the points, level h the centroids of level h - 1               (Vo et al. 2024, arXiv 2405.15613)
resampling, a few rounds:  from every cluster its n closest points; k-means on these alone; all points anew to the
nearest centroid. Dense regions then weigh as much as thin ones, and centroids spread evenly over what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError, require

__all__ = [
    "Clusters",
    "Tree",
    "closest_points",
    "hierarchical_kmeans",
    "kmeans",
    "kmeans_plusplus",
    "nearest_centroids",
]

Backend = Literal["torch", "faiss"]
_SCORES = 1 << 19
"""Scores of points and centroids that are compared at once: 2 MB."""
_FLUSH = 32
"""Points per centroid that are summed in float32 before the sum is added in float64."""
_START_POINTS, _START_EACH = 16_384, 16


@dataclass(frozen=True)
class Clusters:
    """Points and their clusters.

    Attributes:
        centroids: (k, D) float32.
        labels: (n,) int64, the cluster of each point.
        distances: (n,) float32, of each point to its centroid (not squared).
    """

    centroids: np.ndarray
    labels: np.ndarray
    distances: np.ndarray

    @property
    def inertia(self) -> float:
        """Sum of squared distances."""
        return float((self.distances.astype(np.float64) ** 2).sum())


@dataclass(frozen=True)
class Tree:
    """Clusters of clusters.

    Attributes:
        centroids: per level, leaves first: (k_h, D) float32.
        parents: per level but the last: (k_h,) int64, which cluster of the level above a cluster belongs to.
        labels: (n,) int64, the leaf of each point; -1 for a point that belongs nowhere (it has no features).
        distances: (n,) float32, to the leaf's centroid; NaN where the label is -1.
    """

    centroids: tuple[np.ndarray, ...]
    parents: tuple[np.ndarray, ...]
    labels: np.ndarray
    distances: np.ndarray

    def assigned(self, x: Any) -> Tree:
        """The same clusters with other points, each in its nearest leaf; rows that are not finite belong nowhere."""
        x = points(x, finite=False)
        known = np.isfinite(x).all(1)
        labels = np.full(len(x), -1, dtype=np.int64)
        distances = np.full(len(x), np.nan, dtype=np.float32)
        if known.any():
            labels[known], distances[known] = nearest_centroids(x if known.all() else x[known], self.centroids[0])
        return replace(self, labels=labels, distances=distances)

    def ancestors(self, level: int) -> np.ndarray:
        """(k_1,) the cluster of a level (0: the leaf itself) that each leaf lies in."""
        found = np.arange(len(self.centroids[0]))
        for parents in self.parents[:level]:
            found = parents[found]
        return found


def points(x: Any, finite: bool = True) -> np.ndarray:
    """Features as a float32 array (n, D) in one piece.

    Raises:
        UserError: another shape, no point, or a value that is not finite.
    """
    array = np.ascontiguousarray(x.detach().cpu().numpy() if isinstance(x, Tensor) else x, dtype=np.float32)
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"features need the shape (points, width) with at least one of each, got {array.shape}")
    if finite and not np.isfinite(array).all():
        raise UserError("features: NaN or infinity among them; leave those points out")
    return array


# ---- k-means ---------------------------------------------------------------------------------------------------------
def kmeans(
    x: Any,
    k: int,
    *,
    iterations: int = 50,
    start: np.ndarray | None = None,
    seed: int = 0,
    backend: Backend = "torch",
) -> Clusters:
    """Lloyd's algorithm: every point to its nearest centroid (squared Euclidean distance), every centroid to its mean.

    A cluster that loses all its points begins anew at the point that is farthest from its centroid. Iterations end
    early once no point changes its cluster. The result depends on the arguments alone.

    Args:
        x: (n, D) features.
        k: clusters, at most as many as there are distinct points.
        iterations: at most; default 50.
        start: (k, D) first centroids; None: :func:`kmeans_plusplus`.
        seed: of the start.
        backend: "torch", or "faiss" (extra ``curation``) for Lloyd's iterations of that library.

    Raises:
        UserError: k below 1 or more than the distinct points, a start of another shape, points that are not finite.
    """
    x = points(x)
    if iterations < 0:
        raise UserError(f"iterations={iterations} must be 0 or more")
    if start is None:
        centroids = kmeans_plusplus(x, k, seed=seed)
    else:
        centroids = points(start).copy()
        if centroids.shape != (k, x.shape[1]):
            raise UserError(f"start: expected the shape {(k, x.shape[1])}, got {centroids.shape}")
    run = _lloyd_faiss if backend == "faiss" else _lloyd
    centroids = run(x, centroids, iterations)
    labels, distances = nearest_centroids(x, centroids)
    return Clusters(centroids, labels, distances)


def _lloyd(x: np.ndarray, centroids: np.ndarray, iterations: int) -> np.ndarray:
    before: np.ndarray | None = None
    for _ in range(iterations):
        labels, sums = _assign(x, centroids)
        if before is not None and np.array_equal(labels, before):
            break
        before = labels
        counts = np.bincount(labels, minlength=len(centroids))
        filled = counts > 0
        old, centroids = centroids, centroids.copy()
        centroids[filled] = (sums[filled] / counts[filled, None]).astype(np.float32)
        empty = np.flatnonzero(~filled)
        if len(empty):
            distances = _distances(x, old, labels)
            centroids[empty] = x[np.argsort(-distances, kind="stable")[: len(empty)]]
    return centroids


def _lloyd_faiss(x: np.ndarray, centroids: np.ndarray, iterations: int) -> np.ndarray:
    """The iterations of faiss, on all points and from the same start."""
    faiss: Any = require("faiss", "curation")
    if not iterations:
        return centroids
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": -(-len(x) // len(centroids)) + 1}
    run = faiss.Kmeans(x.shape[1], len(centroids), niter=iterations, seed=1, **limits)
    run.train(x, init_centroids=centroids)
    return np.ascontiguousarray(run.centroids, dtype=np.float32)


def nearest_centroids(x: Any, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of the centroids (k, D) to every point: labels (n,) int64 and distances (n,) float32."""
    x, centroids = points(x), points(centroids)
    labels, _ = _assign(x, centroids, want_sums=False)
    return labels, _distances(x, centroids, labels)


def _assign(x: np.ndarray, centroids: np.ndarray, want_sums: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and per cluster the sum of its points in float64.

    argmin |x - c|^2 = argmax x.c - |c|^2 / 2, all of it relative to the mean centroid, so that features far from the
    origin lose no digits. Blocks are small enough for the scores to stay in the cache.
    """
    origin = torch.from_numpy(centroids).double().mean(0).float()
    c = torch.from_numpy(centroids) - origin
    k, turned, offset = len(c), c.T.contiguous(), -(c * c).sum(1) / 2
    labels = torch.empty(len(x), dtype=torch.int64)
    sums, recent = np.zeros((k, x.shape[1]) if want_sums else (0, 0)), torch.zeros(k, x.shape[1])
    rows, taken = min(4096, max(64, _SCORES // k)), 0
    scores = torch.empty(rows, k)
    for first in range(0, len(x), rows):
        part = torch.from_numpy(x[first : first + rows])
        found = torch.addmm(offset, part - origin, turned, out=scores[: len(part)])
        own = torch.from_numpy(found.numpy().argmax(1))  # NumPy's, which is twice as fast as torch's
        labels[first : first + rows] = own
        if want_sums:
            recent.index_add_(0, own, part)
            taken += len(part)
            if taken >= _FLUSH * k or first + rows >= len(x):
                sums += recent.numpy()
                taken, recent = 0, recent.zero_()
    return labels.numpy(), sums


def _distances(x: np.ndarray, centroids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) of every point to its own centroid."""
    found = np.empty(len(x), dtype=np.float32)
    for first in range(0, len(x), 8192):
        own = centroids[labels[first : first + 8192]]
        found[first : first + 8192] = np.linalg.norm(x[first : first + 8192] - own, axis=1)
    return found


def kmeans_plusplus(x: Any, k: int, *, seed: int = 0, among: int | None = None) -> np.ndarray:
    """First centroids: points drawn one by one, each with a chance proportional to its squared distance to the nearest
    one drawn so far (Arthur and Vassilvitskii 2007).

    Args:
        x: (n, D) features.
        k: how many.
        seed: of the draws.
        among: draw from a random part of so many points; None: 16 per centroid, at least 16384.

    Returns:
        (k, D) float32, distinct.

    Raises:
        UserError: fewer than k distinct points (among those drawn from).
    """
    x = points(x)
    if k < 1 or k > len(x):
        raise UserError(f"k={k}: {len(x)} points have 1 to {len(x)} clusters")
    found = _first_centroids(x, k, seed, among)
    if len(found) < k:
        raise UserError(f"k={k}: there are {len(found)} distinct points only; use k={len(found)} or less")
    return found


def _first_centroids(x: np.ndarray, k: int, seed: int, among: int | None = None) -> np.ndarray:
    """k of the points by :func:`kmeans_plusplus`, or as many as are distinct."""
    rng = np.random.default_rng([seed, 1])
    among = max(_START_POINTS, _START_EACH * k) if among is None else max(among, k)
    pool = torch.from_numpy(x if among >= len(x) else x[np.sort(rng.choice(len(x), among, replace=False))])
    chosen = torch.empty(min(k, len(pool)), x.shape[1])
    nearest = torch.full((len(pool),), float("inf"))
    at = int(rng.integers(len(pool)))
    for number in range(len(chosen)):
        chosen[number] = pool[at]
        nearest = torch.minimum(nearest, (pool - pool[at]).square_().sum(1))
        mass = torch.cumsum(nearest.double(), 0)
        if not float(mass[-1]) > 0:
            return chosen[: number + 1].numpy()
        place = torch.searchsorted(mass, rng.random() * float(mass[-1]), right=True)
        at = min(int(place), len(pool) - 1)
        if not nearest[at] > 0:  # the draw fell on the upper end of the sum
            at = int(nearest.argmax())
    return chosen.numpy()


# ---- clusters of clusters --------------------------------------------------------------------------------------------
def hierarchical_kmeans(
    x: Any,
    sizes: Sequence[int],
    *,
    iterations: int = 50,
    resampling: int = 0,
    resample_points: int | Sequence[int] = 10,
    seed: int = 0,
    backend: Backend = "torch",
) -> Tree:
    """Clusters of clusters: level 1 of the points, every further level of the centroids below it.

    Args:
        x: (n, D) features.
        sizes: clusters of each level, falling, such as (5000, 1000). More than there are distinct points are lowered to
            that number.
        iterations: of each k-means.
        resampling: rounds of resampling at each level; 10 flattens the density, 0 leaves it out.
        resample_points: closest points of each cluster that a round learns from; one number, or one per level.
        seed: of the starts.
        backend: as in :func:`kmeans`.

    Raises:
        UserError: no level, sizes that rise, points that are not finite.
    """
    x = points(x)
    sizes = [int(size) for size in sizes]
    each = [resample_points] * len(sizes) if isinstance(resample_points, int) else [int(n) for n in resample_points]
    if not sizes or min(sizes) < 1 or any(a < b for a, b in pairwise(sizes)):
        raise UserError(f"levels {sizes}: give numbers of clusters that fall from level to level, such as 5000, 1000")
    if len(each) != len(sizes) or min(each) < 1 or resampling < 0:
        raise UserError(f"resample_points={resample_points}, resampling={resampling}: one number of points per level")
    level, centroids, parents, found = x, [], [], None
    for height, size in enumerate(sizes):
        options: dict[str, Any] = {"iterations": iterations, "backend": backend}
        one = _resampled(level, size, resampling, each[height], 1000 * height + seed, options)
        found = found or one
        if height:
            parents.append(one.labels)
        level = one.centroids
        centroids.append(level)
    assert found is not None
    return Tree(tuple(centroids), tuple(parents), found.labels, found.distances)


def _resampled(x: np.ndarray, k: int, rounds: int, each: int, seed: int, options: dict[str, Any]) -> Clusters:
    """k-means, then rounds in which it learns from the closest points of each cluster alone."""
    found = _at_most(x, k, seed, options)
    for number in range(rounds):
        core = x[closest_points(found, each)]
        again = _at_most(core, len(found.centroids), seed + 101 * (number + 1), options)
        found = Clusters(again.centroids, *nearest_centroids(x, again.centroids))
    return found


def _at_most(x: np.ndarray, k: int, seed: int, options: dict[str, Any]) -> Clusters:
    """k clusters, or as many as there are distinct points."""
    start = _first_centroids(x, min(k, len(x)), seed)
    return kmeans(x, len(start), start=start, **options)


def closest_points(clusters: Clusters, each: int) -> np.ndarray:
    """Positions of the ``each`` points of every cluster that are closest to its centroid (all of a smaller one)."""
    order = np.lexsort((clusters.distances, clusters.labels))
    labels = clusters.labels[order]
    first = np.r_[True, labels[1:] != labels[:-1]]
    rank = np.arange(len(order)) - np.flatnonzero(first)[np.cumsum(first) - 1]
    return np.sort(order[rank < each])
