"""Balanced sampling from clusters: a budget is shared out level by level like water that fills vessels, then drawn.

n_i = min(x, s_i) with the largest whole x for which sum_i n_i <= B; what is left goes, one each, to children with
s_i > x chosen at random. Top-down through the tree: rare clusters are kept whole, huge ones cut to a common level.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from selftaught.data.curation.clusters import Tree
from selftaught.errors import UserError

__all__ = ["balanced_sample", "leaf_budgets", "leaf_sample", "water_filling"]

Leaf = Literal["eta", "random", "closest", "farthest"]
_STEEPNESS = 4.0


def water_filling(
    sizes: Any, target: int, *, multiplier: int = 1, rng: np.random.Generator | None = None
) -> np.ndarray:
    """How many of ``target`` samples each child gives, as evenly as the sizes allow.

    Args:
        sizes: (k,) whole numbers, 0 or more.
        target: budget B; all is taken where there is less.
        multiplier: how often one sample may be chosen.
        rng: chooses who gets what is left over; None: a fixed one.

    Returns:
        (k,) int64 with 0 <= n_i <= multiplier s_i and sum min(B, multiplier sum s_i). Children that give less than they
        have differ by at most 1.

    Raises:
        UserError: negative or fractional sizes or target, a multiplier below 1.
    """
    given = np.asarray(sizes)
    capacity = given.astype(np.int64).reshape(-1)
    if given.ndim != 1 or (given.size and (given.min() < 0 or not np.array_equal(capacity, given))):
        raise UserError("water_filling: sizes must be a row of whole numbers, 0 or more")
    if target < 0 or target != int(target) or multiplier < 1 or multiplier != int(multiplier):
        raise UserError(f"water_filling: target {target} must be 0 or more, multiplier {multiplier} 1 or more, whole")
    capacity, target = capacity * int(multiplier), int(target)
    if target >= capacity.sum():
        return capacity
    low, high = 0, int(capacity.max())  # the sum at low is at most the target, at high above it
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if np.minimum(capacity, middle).sum() <= target else (low, middle)
    found = np.minimum(capacity, low)
    larger = np.flatnonzero(capacity > low)
    rng = np.random.default_rng(0) if rng is None else rng
    found[rng.permutation(larger)[: target - int(found.sum())]] += 1
    return found


def leaf_budgets(tree: Tree, target: int, *, multiplier: int = 1, seed: int = 0) -> np.ndarray:
    """(k_1,) how many samples every leaf gives: the budget is balanced between the top clusters first, then downwards.

    Args:
        tree: with the points to sample from.
        target: budget B.
        multiplier: how often one sample may be chosen.
        seed: of what is left over.
    """
    rng = np.random.default_rng([seed, 2])
    sizes = np.bincount(tree.labels[tree.labels >= 0], minlength=len(tree.centroids[0]))
    per_level = [sizes]
    for height, parents in enumerate(tree.parents):
        above = np.zeros(len(tree.centroids[height + 1]), dtype=np.int64)
        np.add.at(above, parents, per_level[-1])
        per_level.append(above)
    budgets = water_filling(per_level[-1], target, multiplier=multiplier, rng=rng)
    for height in reversed(range(len(tree.parents))):
        parents, below = tree.parents[height], np.zeros(len(per_level[height]), dtype=np.int64)
        for parent, budget in enumerate(budgets):
            children = np.flatnonzero(parents == parent)
            if len(children):
                below[children] = water_filling(
                    per_level[height][children], int(budget), multiplier=multiplier, rng=rng
                )
        budgets = below
    return budgets


def leaf_sample(
    distances: Any, count: int, *, leaf: Leaf = "eta", eta: float = 0.5, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Positions of ``count`` of a leaf's points, none twice.

    "eta" draws without replacement with weights w = exp(gamma z), z the standardised distance to the centroid and
    gamma = 4 (2 eta - 1): 0 prefers the middle, 0.5 is uniform, 1 prefers the edge (Gumbel top-k on gamma z).

    Args:
        distances: (s,) of the points to the centroid.
        count: 0 to s.
        leaf: "eta", "random", "closest" or "farthest".
        eta: in [0, 1].
        rng: of the draws; None: a fixed one.

    Raises:
        UserError: a count outside 0 to s, eta outside [0, 1], another rule.
    """
    distances = np.asarray(distances, dtype=np.float64)
    if distances.ndim != 1 or not 0 <= count <= len(distances):
        raise UserError(f"leaf_sample: {count} of {distances.shape} points; count lies from 0 to their number")
    if not 0 <= eta <= 1:
        raise UserError(f"eta={eta} must lie in [0, 1]: 0 takes points near the centroid, 1 those far from it")
    if leaf in ("closest", "farthest"):
        order = np.argsort(distances if leaf == "closest" else -distances, kind="stable")
        return np.sort(order[:count])
    if leaf not in ("eta", "random"):
        raise UserError(f"leaf={leaf!r}: choose eta, random, closest or farthest")
    rng = np.random.default_rng(0) if rng is None else rng
    spread = distances.std() if len(distances) else 0.0
    z = (distances - distances.mean()) / spread if spread > 0 else np.zeros_like(distances)
    gamma = 0.0 if leaf == "random" else _STEEPNESS * (2 * eta - 1)
    keys = gamma * z + rng.gumbel(size=len(distances))
    return np.sort(np.argsort(-keys, kind="stable")[:count])


def balanced_sample(
    tree: Tree, target: int, *, leaf: Leaf = "eta", eta: float = 0.5, multiplier: int = 1, seed: int = 0
) -> np.ndarray:
    """Positions of ``target`` points, balanced over the tree's clusters at every level; deterministic in the seed.

    Args:
        tree: with the points to sample from.
        target: how many; all (``multiplier`` times) where there are fewer.
        leaf: rule within a leaf, see :func:`leaf_sample`.
        eta: its diversity.
        multiplier: how often one point may come; above 1 rare ones are repeated.
        seed: of the draws.

    Returns:
        sorted int64; a point comes more than once only with ``multiplier`` above 1.
    """
    budgets = leaf_budgets(tree, target, multiplier=multiplier, seed=seed)
    rng = np.random.default_rng([seed, 3])
    order = np.argsort(tree.labels, kind="stable")
    bounds = np.searchsorted(tree.labels[order], np.arange(len(budgets) + 1))
    found = []
    for number, budget in enumerate(budgets.tolist()):
        members = order[bounds[number] : bounds[number + 1]]
        if budget:
            whole, rest = divmod(budget, len(members))
            drawn = leaf_sample(tree.distances[members], rest, leaf=leaf, eta=eta, rng=rng)
            found += [members] * whole + [members[drawn]]
    return np.sort(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
