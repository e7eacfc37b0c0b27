"""Pruning by density: semantic near-duplicates (SemDeDup), and prototypes (the hardest samples are kept).

SemDeDup      within a cluster, in the order of their distance to the centroid, drop a point whose cosine with a
              kept one before it is above 1 - eps                                   (Abbas et al. 2023, 2303.09540)
prototypes    keep the points that are farthest from their centroid                 (Sorscher et al., 2206.14486)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from selftaught.data.curation.clusters import points
from selftaught.errors import UserError

__all__ = ["Duplicates", "near_duplicates", "prototype_pruning", "semdedup", "unit_rows"]

_BLOCK = 512
First = Literal["far", "near"]


@dataclass(frozen=True)
class Duplicates:
    """Which points repeat another.

    Attributes:
        of: (n,) int64, the point that one is closest to among those before it in its cluster (of the kept ones, where
            points were dropped); -1 for the first of a cluster.
        similarity: (n,) float32, their cosine; -1 for the first.
    """

    of: np.ndarray
    similarity: np.ndarray


def unit_rows(x: Any) -> np.ndarray:
    """Features scaled to length 1, float32; rows of zeros stay."""
    x = points(x)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def near_duplicates(x: Any, labels: Any, distances: Any, *, first: First = "far") -> Duplicates:
    """For every point the most similar one before it in its cluster.

    Args:
        x: (n, D) features; their cosines count.
        labels: (n,) cluster of each point.
        distances: (n,) to the centroid: the order within a cluster.
        first: "far" begins with the point that is farthest from the centroid, as SemDeDup does; "near": the closest.
    """
    return _pass(x, labels, distances, first, limit=None)


def semdedup(x: Any, labels: Any, distances: Any, *, eps: float = 0.05, first: First = "far") -> Duplicates:
    """SemDeDup: greedy, so that a point is dropped for a kept neighbour alone.

    Args:
        x: (n, D) features.
        labels: (n,) cluster of each point.
        distances: (n,) to the centroid.
        eps: in [0, 2]; points whose cosine with a kept one is above 1 - eps are dropped.
        first: as in :func:`near_duplicates`.

    Returns:
        as :func:`near_duplicates`, by kept points; dropped is what has ``similarity > 1 - eps``.

    Raises:
        UserError: eps outside [0, 2].
    """
    if not 0 <= eps <= 2:
        raise UserError(f"eps={eps} must lie in [0, 2]; 0.05 drops what has a cosine above 0.95")
    return _pass(x, labels, distances, first, limit=1 - eps)


def prototype_pruning(distances: Any, target: int, *, keep: Literal["hard", "easy"] = "hard") -> np.ndarray:
    """Positions of the ``target`` points farthest from their prototype (the hardest), or closest to it; sorted.

    Args:
        distances: (n,) to the nearest centroid.
        target: how many; all where there are fewer.
        keep: hard pays with plenty of data, easy with little.
    """
    distances = np.asarray(distances, dtype=np.float64).reshape(-1)
    if target < 0:
        raise UserError(f"prototype_pruning: target {target} must be 0 or more")
    order = np.argsort(-distances if keep == "hard" else distances, kind="stable")
    return np.sort(order[:target])


def _pass(x: Any, labels: Any, distances: Any, first: str, limit: float | None) -> Duplicates:
    unit, labels, distances = unit_rows(x), np.asarray(labels), np.asarray(distances, dtype=np.float64)
    if labels.shape != (len(unit),) or distances.shape != labels.shape:
        raise UserError(f"{len(unit)} points need as many labels and distances, got {labels.shape}, {distances.shape}")
    of = np.full(len(unit), -1, dtype=np.int64)
    similarity = np.full(len(unit), -1.0, dtype=np.float32)
    order = np.lexsort((-distances if first == "far" else distances, labels))
    bounds = np.r_[0, np.flatnonzero(np.diff(labels[order])) + 1, len(order)]
    for low, high in pairwise(bounds):
        members = order[low:high]
        before, nearest = _cluster(unit[members], limit)
        of[members] = np.where(before >= 0, members[before], -1)
        similarity[members] = nearest
    return Duplicates(of, similarity)


def _cluster(unit: np.ndarray, limit: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Per row the most similar earlier one (-1: none) and the cosine, in blocks; with a limit kept ones alone count."""
    count = len(unit)
    of, nearest = np.full(count, -1, dtype=np.int64), np.full(count, -1.0, dtype=np.float32)
    kept = np.zeros(count, dtype=bool)
    for low in range(0, count, _BLOCK):
        block = unit[low : low + _BLOCK]
        earlier = np.flatnonzero(kept[:low]) if limit is not None else np.arange(low)
        if len(earlier):
            cosines = block @ unit[earlier].T
            best = cosines.argmax(1)
            of[low : low + len(block)] = earlier[best]
            nearest[low : low + len(block)] = cosines[np.arange(len(block)), best]
        inside = block @ block.T
        for i in range(len(block)):
            at = low + i
            if limit is not None and nearest[at] > limit:
                continue
            kept[at] = True
            closer = np.flatnonzero(inside[i, i + 1 :] > nearest[at + 1 : low + len(block)]) + at + 1
            of[closer], nearest[closer] = at, inside[i, closer - low]
    return of, nearest
