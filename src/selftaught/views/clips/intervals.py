"""The interval between the starts of two clips of a video: near ones are drawn more often (CVRL, arXiv 2008.03800)."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.errors import UserError

__all__ = ["draw_interval", "interval_bisection", "interval_cdf", "interval_density", "interval_quantile"]

_HALVINGS = 80


def interval_density(t: Any, longest: float, power: float = 1.0) -> np.ndarray:
    """f(t) = (p + 1) / (p M) (1 - (t / M)^p) on [0, M], which falls to 0 at M; for p = 0 its limit -log(t / M) / M.

    Args:
        t: intervals.
        longest: M, above 0.
        power: p above -1: the larger, the flatter; 1 is a straight line.

    Raises:
        UserError: M or p out of range.
    """
    x, p = _share(t, longest, power)
    inside = (x >= 0) & (x <= 1)
    x = np.clip(x, 0, 1)
    with np.errstate(divide="ignore"):
        value = -np.log(x) if p == 0 else (p + 1) / p * (1 - x**p)
    return np.where(inside, value / longest, 0.0)


def interval_cdf(t: Any, longest: float, power: float = 1.0) -> np.ndarray:
    """F(t) = -t^(p+1) / (p M^(p+1)) + t (p + 1) / (p M), the share of intervals up to t.

    For p = 0 its limit x - x log x with x = t / M. Arguments as of `interval_density`.
    """
    x, p = _share(t, longest, power)
    x = np.clip(x, 0, 1)
    if p == 0:
        return x - x * np.log(np.where(x > 0, x, 1.0))
    return ((p + 1) * x - x ** (p + 1)) / p


def interval_quantile(u: Any, longest: float, power: float = 1.0) -> np.ndarray:
    """The t with F(t) = u: M (1 - sqrt(1 - u)) for p = 1, by halving to the last bit for others.

    Args:
        u: numbers in [0, 1].
        longest: M.
        power: p above -1.

    Raises:
        UserError: M, p or u out of range.
    """
    wanted = np.asarray(u, np.float64)
    if np.any((wanted < 0) | (wanted > 1)):
        raise UserError("interval_quantile: u lies between 0 and 1")
    if power == 1:
        _share(0.0, longest, power)
        return longest * wanted / (1 + np.sqrt(1 - wanted))
    low, high = np.zeros_like(wanted), np.full_like(wanted, longest)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = interval_cdf(middle, longest, power) < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def interval_bisection(u: float, longest: int, power: float = 1.0) -> int:
    """The official code's draw: halve whole numbers until they are neighbours, floor(F^-1(u)).

    Args:
        u: a uniform number.
        longest: M, a whole number of frames.
        power: p.
    """
    low, high = 0, int(longest)
    while high - low > 1:
        middle = (low + high) // 2
        if interval_cdf(middle, longest, power) > u:
            high = middle
        else:
            low = middle
    return low


def draw_interval(u: Any, v: Any, longest: float, power: float = 1.0) -> np.ndarray:
    """Draw an interval in closed form, for every power: t = M u v^(1 / (p + 1)).

    A density that falls is a mixture of even ones over [0, y]. Here y / M has the density (p + 1) y^p, whose quantile
    is v^(1 / (p + 1)). The mean is M (p + 1) / (2 (p + 2)): a third of M for p = 1.

    Args:
        u: uniform numbers in [0, 1).
        v: as many again, independent of them.
        longest: M, above 0.
        power: p above -1.

    Raises:
        UserError: M or p out of range.
    """
    _, p = _share(0.0, longest, power)
    return longest * np.asarray(u, np.float64) * np.asarray(v, np.float64) ** (1 / (p + 1))


def _share(t: Any, longest: float, power: float) -> tuple[np.ndarray, float]:
    if not longest > 0:
        raise UserError(f"interval: the longest one must be above 0, got {longest}")
    if not (power > -1 and np.isfinite(power)):
        raise UserError(f"interval: power must be above -1, got {power}")
    return np.asarray(t, np.float64) / longest, float(power)
