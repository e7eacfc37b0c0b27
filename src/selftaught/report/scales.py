"""Axes: from values to pixels, and the ticks that people can read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from selftaught.report.text import number


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis that takes ``low..high`` to ``start..end`` pixels.

    Attributes:
        low: value at ``start``.
        high: value at ``end``; larger than ``low``.
        start: pixel of ``low``.
        end: pixel of ``high`` (may be smaller than ``start``, as on a y axis).
        log: logarithmic; then ``low`` is above zero.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value, to a tenth."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """About ``count`` round values inside the axis: 1, 2, 5 times a power of ten; decades on a long log axis."""
        return self._log_ticks(count) if self.log else self._linear_ticks(count)

    def _linear_ticks(self, count: int) -> list[float]:
        step = _nice((self.high - self.low) / max(count, 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]

    def _log_ticks(self, count: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        within = (self.low * (1 - 1e-9), self.high * (1 + 1e-9))
        decades = [10.0**e for e in range(first, last + 1) if within[0] <= 10.0**e <= within[1]]
        if len(decades) > 2:
            return decades[:: -math.ceil(len(decades) / (count + 1))][::-1]
        fine = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
        inside = [float(f"{v:.6g}") for v in fine if within[0] <= v <= within[1]]
        return inside or [self.low, self.high]


def _nice(step: float) -> float:
    """Of 1, 2, 5 times a power of ten the first that is not much smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= 0.6 * step)


def fit(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    log: bool = False,
    include: Iterable[float] = (),
    margin: float = 0.04,
) -> Scale:
    """The axis that holds all values; one value alone, or none, still gets an axis of some width.

    Args:
        values: what is to be shown, finite (and above zero when ``log``).
        start: pixel of the low end.
        end: pixel of the high end.
        log: logarithmic axis.
        include: values that must be on the axis too, without a margin beyond them.
        margin: share of the range to leave free on both sides.
    """
    data, fixed = list(values), list(include)
    if log:
        data, fixed = [v for v in data if v > 0], [v for v in fixed if v > 0]
        logs = [math.log10(v) for v in data + fixed] or [0.0, 1.0]
        low, high = _widen(min(logs), max(logs), 0.15)
        extra = margin * (high - low)
        return Scale(10 ** (low - extra), 10 ** (high + extra), start, end, log=True)
    everything = data + fixed or [0.0, 1.0]
    low, high = _widen(min(everything), max(everything), 0.5)
    extra = margin * (high - low)
    bottom = low if low in fixed else low - extra
    top = high if high in fixed else high + extra
    return Scale(bottom, top, start, end)


def _widen(low: float, high: float, by: float) -> tuple[float, float]:
    if high - low > 1e-12 * max(abs(low), abs(high), 1e-300):
        return low, high
    reach = by * (abs(low) or 1.0)
    return low - reach, high + reach


def label(value: float, ticks: list[float]) -> str:
    """A tick's text: as many decimals as its axis needs, thousands as k and M, tiny ones as powers of ten."""
    largest = max(abs(t) for t in ticks)
    if value == 0:
        return "0"
    smallest = min(abs(t) for t in ticks if t)
    if abs(value) < 1e-3 or (smallest < 1e-3 and all(_is_decade(t) for t in ticks)):
        return _power(value)
    if largest >= 1e6:
        return f"{number(float(f'{value / 1e6:.4g}'), None if (value / 1e6).is_integer() else 1)}M"
    if largest >= 1e4:
        return f"{number(float(f'{value / 1e3:.4g}'), None if (value / 1e3).is_integer() else 1)}k"
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def _is_decade(value: float) -> bool:
    return value > 0 and abs(math.log10(value) - round(math.log10(value))) < 1e-9


def _power(value: float) -> str:
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    front = mantissa.removesuffix(".0").replace("-", "\N{MINUS SIGN}")
    return f"10{raised}" if front == "1" else f"{front}×10{raised}"
