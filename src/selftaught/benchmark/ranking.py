"""Several methods over several data sets: mean ranks, Friedman's test, Nemenyi's critical difference (Demsar 2006).

Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from selftaught.errors import UserError

Better = Literal["high", "low"]


@dataclass(frozen=True)
class Comparison:
    """What the ranks of k methods over N data sets say.

    Args:
        names: the methods, best mean rank first.
        ranks: their mean ranks, 1 is best.
        blocks: N, how many data sets were ranked.
        statistic: Friedman's chi-square, corrected for ties, with k - 1 degrees of freedom.
        p: its p-value.
        difference: Nemenyi's critical difference of two mean ranks.
        alpha: level of the critical difference.
    """

    names: tuple[str, ...]
    ranks: tuple[float, ...]
    blocks: int
    statistic: float
    p: float
    difference: float
    alpha: float

    def groups(self) -> list[tuple[int, int]]:
        """Largest runs (first, last) of methods whose mean ranks differ by less than the critical difference."""
        found: list[tuple[int, int]] = []
        for first, rank in enumerate(self.ranks):
            last = max(i for i, other in enumerate(self.ranks) if other - rank < self.difference or i == first)
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found

    def sentence(self) -> str:
        """The test in one sentence."""
        told = f"Friedman's chi-square {self.statistic:.2f}, p = {self.p:.2g}, over {self.blocks} data sets"
        if not self.p < self.alpha:
            return f"{told}: no difference between the {len(self.names)} methods that so many data sets could show"
        return f"{told}; mean ranks further apart than {self.difference:.2f} differ (Nemenyi, {self.alpha:g})"


def compare(
    names: Sequence[str],
    scores: Sequence[Sequence[float]] | np.ndarray,
    *,
    better: Better = "high",
    alpha: float = 0.05,
) -> Comparison:
    """Rank k methods in each of N blocks and test whether they differ.

    Args:
        names: the k methods.
        scores: ``(N, k)``, a row per data set; without gaps.
        better: whether high or low scores are good.
        alpha: level of the critical difference.

    Raises:
        UserError: fewer than two methods or data sets, a gap, lengths that don't fit.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(names) or table.shape[1] < 2 or table.shape[0] < 2:
        raise UserError(f"ranks: scores {table.shape} for {len(names)} methods; give two data sets and methods or more")
    if not np.isfinite(table).all():
        raise UserError("ranks: a score is missing; leave out data sets that not every method has")
    ranks = rank(table, better)
    blocks, k = ranks.shape
    mean = ranks.mean(0)
    statistic = _friedman(ranks)
    order = np.argsort(mean, kind="stable")
    return Comparison(
        names=tuple(str(names[i]) for i in order),
        ranks=tuple(float(mean[i]) for i in order),
        blocks=blocks,
        statistic=statistic,
        p=float(stats.chi2.sf(statistic, k - 1)),
        difference=critical_difference(k, blocks, alpha),
        alpha=alpha,
    )


def rank(scores: np.ndarray, better: Better = "high") -> np.ndarray:
    """Ranks within each row of ``(N, k)`` scores, 1 is best, equal scores share the mean of theirs."""
    return np.asarray(stats.rankdata(-scores if better == "high" else scores, axis=1), dtype=np.float64)


def _friedman(ranks: np.ndarray) -> float:
    """``12 N / (k (k + 1)) sum_j (R_j - (k + 1) / 2)^2``, divided by what ties leave of the ranks' variance."""
    blocks, k = ranks.shape
    raw = 12 * blocks / (k * (k + 1)) * float(((ranks.mean(0) - (k + 1) / 2) ** 2).sum())
    ties = sum(float((np.unique(row, return_counts=True)[1] ** 3.0).sum()) - k for row in ranks)
    left = 1 - ties / (blocks * k * (k * k - 1))
    return raw / left if left > 0 else 0.0


def critical_difference(k: int, blocks: int, alpha: float = 0.05) -> float:
    """``q_alpha sqrt(k (k + 1) / (6 N))``, q the studentised range for k groups over sqrt(2)."""
    if k < 2 or blocks < 1 or not 0 < alpha < 1:
        raise UserError(f"critical difference of {k} methods over {blocks} data sets at {alpha}: out of range")
    quantile = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(k * (k + 1) / (6 * blocks))
