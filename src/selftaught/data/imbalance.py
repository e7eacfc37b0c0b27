"""Long-tailed versions of labelled sources: some classes keep many samples, others few."""

from __future__ import annotations

import math

import numpy as np

from selftaught.data.source import Source, require_labels
from selftaught.errors import UserError

PROFILES = ("linear", "exponential")


def long_tail(source: Source, imbalance: float | str, seed: int = 0) -> Source:
    """A source with uneven classes, made of a labelled one; classes c = 0 .. C-1 in the order of their labels.

    Args:
        source: labelled, with two classes or more.
        imbalance: a ratio r in (0, 1] keeps n_max r^(c/(C-1)) samples of class c, the exponential profile of CIFAR-LT
            (Cui et al. 2019, arXiv 1901.05555): r is the share of the last class, 0.01 is usual. ``"linear"`` keeps
            the share (c+1)/C of class c and ``"exponential"`` exp(c+1)/exp(C), the profiles of CACR (arXiv 2105.03746),
            whose last class is the largest.
        seed: of the draw. The samples that a smaller ratio keeps are among those of a larger one.

    Returns:
        At least one sample of every class, never more than it has, in the order of the source.

    Raises:
        UserError: no labels, a single class, another value of ``imbalance``.
    """
    labels = require_labels(source)
    present, sizes = np.unique(labels, return_counts=True)
    if len(present) < 2:
        raise UserError(f"{source.name} has one class only: imbalance={imbalance} needs two or more")
    shares = _shares(imbalance, len(present))
    wanted = shares * (sizes if imbalance in PROFILES else sizes.max())
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    kept = [
        order[labels[order] == k][: int(np.clip(round(float(count)), 1, size))]
        for k, count, size in zip(present, wanted, sizes, strict=True)
    ]
    return source.subset(np.sort(np.concatenate(kept)), f"long-tailed {imbalance}")


def _shares(imbalance: float | str, count: int) -> np.ndarray:
    """What each of ``count`` classes keeps, as a share of the largest class (a ratio) or of its own (a profile)."""
    place = np.arange(count)
    if imbalance == "linear":
        return (place + 1) / count
    if imbalance == "exponential":
        return np.exp(place + 1.0 - count)
    try:
        ratio = float(imbalance)
    except ValueError:
        ratio = math.nan
    if not 0 < ratio <= 1:
        raise UserError(
            f"imbalance={imbalance} must be the share of the smallest class, such as 0.01, or {' or '.join(PROFILES)}"
        )
    return ratio ** (place / (count - 1))
