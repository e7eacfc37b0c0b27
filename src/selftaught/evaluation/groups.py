"""Numbers by group of people or places, and the gap between the best and the worst served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation.result import Number

__all__ = ["AGES", "INCOMES", "buckets"]

Groups = Mapping[str, Sequence[Any] | np.ndarray]
"""Attribute ("gender", "income") -> the group of every image, as text; "" where it is not known."""

SMALL_GROUP = 10
AGES = (18.0, 30.0, 45.0, 70.0)
"""Years at which ages given as numbers are parted, as Casual Conversations' buckets are."""
INCOMES = (200.0, 2000.0)
"""Monthly incomes at which numbers are parted into low, medium and high."""
_DRAWS = 1000


def by_group(values: Any, groups: Groups, name: str) -> dict[str, Number]:
    """The mean of a measure in every group, and the gap between the largest and the smallest mean.

    Args:
        values: ``(n,)`` one value per image (right or wrong, a precision).
        groups: see `Groups`; more than one attribute are crossed as well ("gender × skin").
        name: of the measure.

    Returns:
        ``"NAME: ATTRIBUTE GROUP"`` and ``"NAME: ATTRIBUTE gap"``, with bootstrap intervals over images; those of a gap
        from drawing within each group. An attribute with a single group has no gap.

    Raises:
        UserError: lengths that do not match, or an attribute that is known of no image.
    """
    measured = np.asarray(values, dtype=np.float64)
    numbers: dict[str, Number] = {}
    for attribute, members in cross(groups, len(measured)).items():
        parts = {group: measured[members == group] for group in _known(members)}
        numbers |= {f"{name}: {attribute} {group}": Number.bootstrap(part) for group, part in parts.items()}
        if len(parts) > 1:
            numbers[f"{name}: {attribute} gap"] = gap(list(parts.values()))
    return numbers


def gap(parts: Sequence[np.ndarray]) -> Number:
    """Largest minus smallest mean over groups, with the percentile interval of draws within each group.

    A group that is all right or all wrong is not drawn from, which would claim certainty, but from the distribution
    whose quantiles are Clopper and Pearson's bounds.

    Args:
        parts: the values of every group, each ``(n_g,)``, at least one.

    Raises:
        UserError: no group, or one without values.
    """
    if not parts or not all(len(part) for part in parts):
        raise UserError("groups: none, or one without images; a gap needs values in every group")
    means = [float(np.mean(part)) for part in parts]
    point = max(means) - min(means)
    if max(map(len, parts)) == 1:
        return Number(point, values=(point,))
    rng = np.random.default_rng(0)
    draws = np.stack([_drawn_means(np.asarray(part, dtype=np.float64), rng) for part in parts])
    low, high = np.quantile(draws.max(0) - draws.min(0), [0.025, 0.975])
    return Number(point, min(float(low), point), max(float(high), point), (point,))


def _drawn_means(part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(part)
    if np.all(part == 1) or not part.any():
        near = rng.random(_DRAWS) ** (1 / n)
        return near if part.any() else 1 - near
    if np.isin(part, (0.0, 1.0)).all():
        return rng.binomial(n, part.mean(), _DRAWS) / n
    return np.array([part[rng.integers(0, n, n)].mean() for _ in range(_DRAWS)])


def cross(groups: Groups, n: int) -> dict[str, np.ndarray]:
    """The groups of every attribute as text, and of all attributes together where there is more than one.

    Args:
        groups: see `Groups`.
        n: number of images.

    Returns:
        attribute -> ``(n,)``; the crossed one is called "gender × skin", its groups "female × dark". An image that one
        attribute is not known of ("") has no crossed group.

    Raises:
        UserError: lengths that do not match, or an attribute that is known of no image.
    """
    found = {name: np.array([str(v).strip() for v in members], dtype=object) for name, members in groups.items()}
    for name, members in found.items():
        if len(members) != n:
            raise UserError(f"groups: {len(members)} values of {name} for {n} images; pass one per image")
        if not _known(members):
            raise UserError(f"groups: {name} is known of no image")
    if len(found) > 1:
        rows = zip(*found.values(), strict=True)
        crossed = [" × ".join(row) if all(row) else "" for row in rows]
        if any(crossed):
            found[" × ".join(found)] = np.array(crossed, dtype=object)
    return found


def small_groups(groups: Groups, n: int) -> str:
    """A line that names the groups of fewer than ten images, whose numbers say little; empty if there are none."""
    few = [
        f"{attribute} {group} ({int((members == group).sum())})"
        for attribute, members in cross(groups, n).items()
        for group in _known(members)
        if (members == group).sum() < SMALL_GROUP
    ]
    shown = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
    return f"fewer than {SMALL_GROUP} images in {shown}" if few else ""


def buckets(values: Sequence[Any], bounds: Sequence[float], names: Sequence[str] | None = None) -> list[str]:
    """Numbers as buckets: below the first bound, from each bound to below the next, from the last one on.

    Args:
        values: numbers, or text that spells them; where one of them is a word, all stay as they are.
        bounds: ascending.
        names: of the ``len(bounds) + 1`` buckets; default "< 18", "18-30", ..., "70+".

    Returns:
        The bucket of each value; "" for an empty one.

    Raises:
        UserError: bounds that do not ascend, or names that are too many or too few.
    """
    if list(bounds) != sorted(set(bounds)) or not len(bounds):
        raise UserError(f"bounds: {list(bounds)}; pass ascending numbers")
    if names is None:
        between = [f"{a:g}-{b:g}" for a, b in pairwise(bounds)]
        names = [f"< {bounds[0]:g}", *between, f"{bounds[-1]:g}+"]
    if len(names) != len(bounds) + 1:
        raise UserError(f"names: {len(names)} for {len(bounds) + 1} buckets")
    text = [str(value).strip() for value in values]
    try:
        numbers = [float(value) if value else np.nan for value in text]
    except ValueError:
        return text
    found = np.searchsorted(np.asarray(bounds, dtype=np.float64), numbers, side="right")
    return [names[k] if value else "" for k, value in zip(found, text, strict=True)]


def _known(members: np.ndarray) -> list[str]:
    return sorted({str(m) for m in members if m})
