"""Numbers with intervals, what a protocol returns, and tables of them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selftaught.errors import UserError

__all__ = ["Difference", "Number", "Result", "paired_difference", "table"]

Extent = tuple[float, float]
"""The least and the largest value that a measure can have."""
ANY: Extent = (-math.inf, math.inf)
_SHARES = re.compile(
    r"accuracy|accuracy_all_classes|pixel_accuracy|balanced|balanced_accuracy|average|top\d+|(weighted_|macro_)?f1(_last|_better|_tenth)?|auc|auroc|"
    r"aupr(_in|_out)?|fpr\d+|map|ap\d+|precision|recall|hit_rate|false_positive_rate|found_in_first|m?iou|dice|nmi|"
    r"delta\d|worst_group|harmonic|chance|image_to_text_r\d+|text_to_image_r\d+|within"
)
_CORRELATIONS = re.compile(r"kappa|ari|rho|ssim|ms_ssim")


def extent(name: str) -> Extent:
    """What a number of this name can be: 0 to 1 of a share ("accuracy@10", "recall@1", "iou 3"), -1 to 1 of a
    correlation ("kappa", "rho"), anything else of other numbers, differences and gaps.
    """
    first = re.split(r"[ @:]", name, maxsplit=1)[0]
    if name.endswith(" gap"):
        return ANY
    if _SHARES.fullmatch(first):
        return (0.0, 1.0)
    return (-1.0, 1.0) if _CORRELATIONS.fullmatch(first) else ANY


@dataclass(frozen=True)
class Number:
    """A measured value with the interval that says how far to trust it.

    Args:
        mean: the point estimate.
        low: lower end of the interval; ``None`` where a single value gives none.
        high: upper end.
        values: the single values behind it: one per seed, or just the estimate when the interval is over test items.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    values: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        values: Sequence[float] | np.ndarray | float,
        level: float = 0.95,
        within: Extent = ANY,
    ) -> Number:
        """Mean over seeds with Student's interval, ``mean +- t_{n-1} s / sqrt(n)`` (s with divisor n - 1).

        Args:
            values: one value per seed; a single one has no interval, nor have values that are all the same: they say
                that the seed made no difference, not that the number is certain.
            level: coverage, default 0.95.
            within: what the measure can be, such as (0, 1) of an accuracy; see `extent`. The interval is cut there:
                where no truth can lie nothing is covered, so that its coverage stays as it is. Values outside of it
                (per cent) are left alone.

        Raises:
            UserError: no value.
        """
        array = np.atleast_1d(np.asarray(values, dtype=np.float64))
        if not array.size:
            raise UserError("values: empty; a number needs at least one measured value")
        mean, kept = float(array.mean()), tuple(array.tolist())
        if array.size == 1 or bool((array == array[0]).all()):
            return cls(mean, values=kept)
        from scipy.special import stdtrit

        low, high = (within[0], within[1]) if within[0] <= array.min() and array.max() <= within[1] else ANY
        half = float(stdtrit(array.size - 1, 0.5 + level / 2) * array.std(ddof=1) / math.sqrt(array.size))
        return cls(mean, max(mean - half, low), min(mean + half, high), kept)

    @classmethod
    def bootstrap(
        cls,
        per_item: Sequence[float] | np.ndarray,
        statistic: Callable[[np.ndarray], float] | None = None,
        *,
        resamples: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> Number:
        """A statistic over test items with its percentile bootstrap interval (Efron 1979).

        Args:
            per_item: ``(n,)`` or ``(n, m)``, one row per test item (right or wrong, an error, a PSNR).
            statistic: rows -> float; the mean of ``(n,)`` if not given.
            resamples: how many times the items are drawn with replacement, default 1000.
            level: coverage, default 0.95.
            seed: of the drawing.

        Returns:
            The statistic of all items and the interval; a single item has none, nor have items that are all the same.
            When every item is right (or every one wrong) resampling would claim certainty, so the exact binomial
            bound (Clopper-Pearson) is used.

        Raises:
            UserError: no items.
        """
        items = np.asarray(per_item, dtype=np.float64)
        if not len(items):
            raise UserError("per_item: empty; an interval over test items needs at least one")
        mean = float(items.mean() if statistic is None else statistic(items))
        n = len(items)
        if n == 1:
            return cls(mean, values=(mean,))
        if statistic is None and items.ndim == 1 and mean in (0.0, 1.0) and np.all(items == mean):
            slack = 1 - ((1 - level) / 2) ** (1 / n)
            return cls(mean, mean - slack if mean else 0.0, 1.0 if mean else slack, (mean,))
        if bool((items == items[0]).all()):
            return cls(mean, values=(mean,))
        draws = _resample(items, statistic, resamples, np.random.default_rng(seed))
        draws = draws[np.isfinite(draws)]
        if not len(draws):
            return cls(mean, values=(mean,))
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        return cls(mean, float(low), float(high), (mean,))

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON: ``{"mean", "low", "high", "values"}``; what is not finite becomes ``None``."""
        values = [_finite(v) for v in self.values]
        return {"mean": _finite(self.mean), "low": _finite(self.low), "high": _finite(self.high), "values": values}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Number:
        """The inverse of ``to_dict``; a mean or value of ``None`` becomes NaN."""
        values = tuple(math.nan if v is None else float(v) for v in data.get("values", ()))
        mean = math.nan if data["mean"] is None else float(data["mean"])
        low, high = data.get("low"), data.get("high")
        return Difference(mean, low, high, values, data["p"]) if "p" in data else Number(mean, low, high, values)

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "-"
        if self.low is None or self.high is None:
            return _short(self.mean)
        return f"{_short(self.mean)} [{_short(self.low)}, {_short(self.high)}]"


@dataclass(frozen=True)
class Difference(Number):
    """A paired difference ``a - b`` with its p-value.

    Args:
        p: two-sided p-value of the paired t-test; ``None`` with a single pair.
    """

    p: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As ``Number.to_dict``, with ``"p"``."""
        return {**super().to_dict(), "p": self.p}

    def __str__(self) -> str:
        sign = "+" if self.mean > 0 else ""
        return f"{sign}{super().__str__()}" + ("" if self.p is None or self.low is None else f", p = {self.p:.2g}")


def paired_difference(
    a: Number | Sequence[float] | np.ndarray, b: Number | Sequence[float] | np.ndarray, level: float = 0.95
) -> Difference:
    """The mean of ``a_s - b_s`` over seeds s, with Student's interval and the two-sided paired t-test.

    Args:
        a: values per seed (or a ``Number`` made by ``Number.of``).
        b: values of the other side, same seeds in the same order.
        level: coverage, default 0.95.

    Returns:
        ``Difference``: interval and ``p`` are ``None`` with a single pair. When all differences are the same there is
        no spread to judge by: no interval either, and ``p`` is the formula's limit, 0 (or 1 where they are zero), which
        is not printed.

    Raises:
        UserError: the two sides differ in length or are empty.
    """
    left, right = (np.asarray(v.values if isinstance(v, Number) else v, dtype=np.float64) for v in (a, b))
    if left.shape != right.shape or left.ndim != 1:
        raise UserError(f"paired difference: {left.size} values against {right.size}; run both sides on the same seeds")
    number = Number.of(left - right, level)
    n = left.size
    if n == 1:
        return Difference(number.mean, values=number.values)
    from scipy.special import stdtr

    spread = (left - right).std(ddof=1) / math.sqrt(n)
    p = float(number.mean == 0) if number.low is None else float(2 * stdtr(n - 1, -abs(number.mean) / spread))
    return Difference(number.mean, number.low, number.high, number.values, p)


@dataclass(frozen=True, repr=False)
class Result:
    """What a protocol returns.

    Args:
        name: of the protocol ("knn", "linear", ...).
        numbers: name -> ``Number``, the headline first.
        figures: name -> plain data to draw (curves, confusion matrix, spectrum); arrays become lists.
        note: what a reader must know to trust the numbers (a class missing, k clipped); one line or empty.
    """

    name: str
    numbers: dict[str, Number]
    figures: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", _plain(self.figures))

    def __getitem__(self, key: str) -> Number:
        return self.numbers[key]

    def noted(self, note: str) -> Result:
        """The same with one more note."""
        return dataclasses.replace(self, note="; ".join(n for n in (self.note, note) if n))

    def on_seen(self, seen: str) -> Result:
        """The same, measured on what the model learnt from ("the pairs that it learnt from"); as it is for ""."""
        if not seen:
            return self
        return dataclasses.replace(self.noted(f"on {seen}"), figures={**(self.figures or {}), "seen": seen})

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON: ``{"name", "numbers", "figures", "note"}``."""
        numbers = {key: number.to_dict() for key, number in self.numbers.items()}
        return {"name": self.name, "numbers": numbers, "figures": self.figures, "note": self.note}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """The inverse of ``to_dict``."""
        numbers = {key: Number.from_dict(number) for key, number in data["numbers"].items()}
        return cls(data["name"], numbers, dict(data.get("figures", {})), data.get("note", ""))

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        shown = [f"{key} {number}" for key, number in list(self.numbers.items())[:6]]
        more = f" (+{len(self.numbers) - 6} more)" if len(self.numbers) > 6 else ""
        return f"{self.name}: {' · '.join(shown)}{more}" + (f" ({self.note})" if self.note else "")


def table(
    rows: Mapping[str, Result], columns: Sequence[str] | None = None, corner: str = "", *, upright: bool = False
) -> str:
    """Results side by side as a Markdown table, one row each.

    Args:
        rows: row name ("this encoder", "untrained encoder", "raw input") -> result.
        columns: names of the numbers to show; all that occur, in order of appearance, if not given.
        corner: heading of the first column.
        upright: one line per number and one column per result, for many numbers.

    Returns:
        Markdown; a cell is ``mean [low, high]``, or a dash where the row lacks that number.

    Raises:
        UserError: no rows.
    """
    if not rows:
        raise UserError("rows: empty; a table needs at least one result")
    if columns is None:
        columns = list(dict.fromkeys(key for result in rows.values() for key in result.numbers))
    lines = [[corner, *columns], ["---", *("---:" for _ in columns)]]
    for name, result in rows.items():
        lines.append([name, *(str(result.numbers[c]) if c in result.numbers else "-" for c in columns)])
    if upright:
        lines = [list(cells) for cells in zip(lines[0], *lines[2:], strict=True)]
        lines.insert(1, ["---", *("---:" for _ in rows)])
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _resample(
    items: np.ndarray, statistic: Callable[[np.ndarray], float] | None, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    n = len(items)
    if statistic is None and np.isin(items, (0.0, 1.0)).all():
        return rng.binomial(n, items.mean(), resamples) / n  # what drawing n of the items amounts to
    draws = np.empty(resamples)
    for r in range(resamples):
        rows = items[rng.integers(0, n, n)]
        draws[r] = rows.mean() if statistic is None else statistic(rows)
    return draws


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 1000 else f"{value:.4g}"


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _plain(value: Any) -> Any:
    """Arrays, tensors and numbers of NumPy as what JSON knows; not-finite numbers as ``None``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _finite(value) if isinstance(value, float) else value
