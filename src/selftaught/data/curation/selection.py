"""Choosing a part of many samples: the rule with its options, and what it chose with the reasons."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np

from selftaught.catalog.rules import Count, Form, Natural, PositiveShare, Share, check_options
from selftaught.data.curation.clusters import Tree, hierarchical_kmeans
from selftaught.data.curation.density import Duplicates, near_duplicates, prototype_pruning, semdedup, unit_rows
from selftaught.data.curation.sampling import balanced_sample
from selftaught.errors import UserError

__all__ = ["Selection", "SelectionOptions", "choose", "collapsed", "level_sizes", "mean_cosine"]

COLLAPSED = 0.999
"""Mean cosine of two features from which on clusters mean nothing."""
_PER_LEAF, _PER_PARENT = 30, 5
Levels = Annotated[str, Form(r"auto|[1-9]\d*(-[1-9]\d*)*", "auto, or clusters per level such as 5000-1000")]


@dataclass
class SelectionOptions:
    """How a part of the samples is chosen by their features."""

    selection: Literal["balanced", "flat", "semdedup", "prototypes", "random"] = "balanced"
    """balanced over clusters of clusters; flat: over one level; semdedup drops near-duplicates; prototypes keeps the
    hardest; random."""
    levels: Levels = "auto"
    """Clusters per level, the leaves first, such as 5000-1000; auto: a leaf per 30 samples, a parent per 5 leaves."""
    cluster_share: PositiveShare = 0.2
    """Share of the samples, drawn at random, that the clusters are learnt from; all are then assigned to them."""
    cluster_least: Count = 10_000
    """Samples that the clusters are learnt from at least, as far as there are so many."""
    resampling: Natural = 0
    """Rounds of resampling per level, which flatten the density; 10 in the web-scale recipe."""
    resample_points: Count = 10
    """Samples of each cluster that a round of resampling learns from: those closest to the centroid."""
    iterations: Count = 50
    """Iterations of each k-means."""
    leaf: Literal["eta", "random", "closest", "farthest"] = "eta"
    """Which samples of a leaf are taken: drawn by eta, at random, or those closest to or farthest from the centroid."""
    eta: Share = 0.5
    """Diversity within a leaf: 0 prefers samples near the centroid, 0.5 is uniform, 1 prefers those far from it."""
    multiplier: Count = 1
    """How often a sample may be chosen: above 1 rare ones are repeated."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        indices: sorted positions of the kept samples (one comes more than once only with a multiplier above 1).
        mode: the rule that chose them; "random" where the features were of no use.
        note: why another rule than the wanted one was taken; else "".
        tree: the clusters, every sample in its leaf; None for a random choice.
        duplicates: nearest sample before each (semdedup); else None.
    """

    indices: np.ndarray
    mode: str
    note: str = ""
    tree: Tree | None = field(default=None, repr=False)
    duplicates: Duplicates | None = field(default=None, repr=False)


def choose(
    x: Any,
    target: int | None,
    options: SelectionOptions | None = None,
    *,
    eps: float | None = None,
    seed: int = 0,
    backend: Any = "torch",
) -> Selection:
    """Choose ``target`` of the samples by their features; deterministic in its arguments.

    Args:
        x: (n, D) features; a row that isn't finite (an unreadable sample) is never chosen.
        target: how many; all usable ones where there are fewer. semdedup then keeps the least similar ones.
        options: the rule; None: the defaults.
        eps: semdedup only, in place of a target: drop what has a cosine above 1 - eps with a kept sample.
        seed: of the draws and starts.
        backend: of k-means.

    Raises:
        UserError: no usable sample, a target below 1, target and ``eps`` both given or both missing, ``eps`` with
            another rule than semdedup.
    """
    options = options or SelectionOptions()
    x = np.asarray(x)
    usable = np.flatnonzero(np.isfinite(x).all(1)) if x.ndim == 2 and len(x) else np.zeros(0, np.int64)
    if not len(usable):
        raise UserError(f"none of the {len(x)} samples has usable features")
    if (target is None) == (eps is None) or (target is not None and target < 1):
        raise UserError(f"how many to keep ({target}): at least 1, or none at all with eps")
    if eps is not None and options.selection != "semdedup":
        raise UserError(f"eps={eps} is for selection=semdedup, not {options.selection}")
    if options.selection == "random":
        return Selection(_random(usable, target or 0, seed), "random")
    unit = unit_rows(x[usable])
    if collapsed(unit):
        note = f"the features are nearly one (mean cosine {mean_cosine(unit):.4f}): chosen at random"
        return Selection(_random(usable, len(usable) if target is None else target, seed), "random", note)
    tree = _clustered(unit, options, seed, backend)
    duplicates = None
    if options.selection == "semdedup":
        chosen, duplicates = _without_duplicates(unit, tree, target, eps)
    elif options.selection == "prototypes":
        chosen = prototype_pruning(tree.distances, target or 0)
    else:
        how: Any = {"leaf": options.leaf, "eta": options.eta, "multiplier": options.multiplier, "seed": seed}
        chosen = balanced_sample(tree, target or 0, **how)
    if len(usable) < len(x):
        tree, duplicates = _spread(tree, duplicates, usable, len(x))
    return Selection(usable[chosen], options.selection, "", tree, duplicates)


def _random(usable: np.ndarray, target: int, seed: int) -> np.ndarray:
    order = np.random.default_rng([seed, 4]).permutation(usable)
    return np.sort(order[:target])


def _clustered(unit: np.ndarray, options: SelectionOptions, seed: int, backend: Any) -> Tree:
    """Clusters of a random part of the samples, and all of them in their leaves."""
    count = min(len(unit), max(options.cluster_least, round(options.cluster_share * len(unit))))
    drawn = np.sort(np.random.default_rng([seed, 5]).permutation(len(unit))[:count])
    sizes = level_sizes(options.levels, count)
    if options.selection != "balanced":
        sizes = sizes[:1]
    tree = hierarchical_kmeans(
        unit if count == len(unit) else unit[drawn],
        sizes,
        iterations=options.iterations,
        resampling=options.resampling,
        resample_points=options.resample_points,
        seed=seed,
        backend=backend,
    )
    return tree if count == len(unit) else tree.assigned(unit)


def _without_duplicates(
    unit: np.ndarray, tree: Tree, target: int | None, eps: float | None
) -> tuple[np.ndarray, Duplicates]:
    if eps is not None:
        found = semdedup(unit, tree.labels, tree.distances, eps=eps)
        return np.flatnonzero(found.similarity <= 1 - eps), found
    found = near_duplicates(unit, tree.labels, tree.distances)
    return np.sort(np.argsort(found.similarity, kind="stable")[:target]), found


def _spread(
    tree: Tree, duplicates: Duplicates | None, usable: np.ndarray, count: int
) -> tuple[Tree, Duplicates | None]:
    """The same over all samples, those without features in no cluster."""

    def wide(rows: np.ndarray, fill: float) -> np.ndarray:
        found = np.full(count, fill, dtype=rows.dtype)
        found[usable] = rows
        return found

    tree = Tree(tree.centroids, tree.parents, wide(tree.labels, -1), wide(tree.distances, np.nan))
    if duplicates is not None:
        of = np.where(duplicates.of >= 0, usable[duplicates.of], -1)
        duplicates = Duplicates(wide(of, -1), wide(duplicates.similarity, -1))
    return tree, duplicates


def level_sizes(levels: str, count: int) -> tuple[int, ...]:
    """Clusters per level for ``count`` samples: as said, or ``auto``: a leaf per 30 and a parent per 5 leaves.

    Raises:
        UserError: another text.
    """
    if levels != "auto":
        if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)*", levels):
            raise UserError(f"levels={levels!r}: auto, or clusters per level such as 5000-1000")
        return tuple(int(size) for size in levels.split("-"))
    leaves = max(1, count // _PER_LEAF)
    parents = leaves // _PER_PARENT
    return (leaves, parents) if parents > 1 else (leaves,)


def mean_cosine(unit: np.ndarray) -> float:
    """Mean cosine of two different rows of length 1: (|sum|^2 - n) / (n (n - 1)); 0 for one row."""
    n = len(unit)
    total = unit.sum(0, dtype=np.float64)
    return float((total @ total - n) / (n * (n - 1))) if n > 1 else 0.0


def collapsed(unit: np.ndarray) -> bool:
    """Whether features of length 1 are so alike that clusters of them mean nothing."""
    return len(unit) > 1 and mean_cosine(unit) > COLLAPSED
