"""Time columns of recordings: stamps of text to seconds, units of numbers, steps, and even steps out of uneven ones."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

_STAMP = (
    r"^(?:(?P<a>\d{1,4})[-/.](?P<b>\d{1,2}|[A-Za-z]{3})[-/.](?P<c>\d{1,4}),?)?[ T_]*"
    r"(?:(?P<h>\d{1,2}):(?P<m>\d{2})(?::(?P<s>\d{2})(?:[.,:](?P<f>\d{1,9}))?)?)?"
    r" *(?P<half>[AaPp][Mm])? *(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY = 86_400.0
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
"""Seconds in each unit that a column of time may be in."""
_SPELT = (
    (r"n(ano)?s(ec)?(onds?)?|nanos", "ns"),
    (r"(u|µ|μ|micro)s(ec)?(onds?)?|micros", "us"),
    (r"m(illi)?s(ec)?(onds?)?|millis", "ms"),
    (r"s|secs?|seconds?", "s"),
    (r"mins?|minutes?", "min"),
    (r"h|hours?", "h"),
)
_TIME_WORDS = re.compile(r"time|date|epoch|elapsed|zeit|uhr|datum|clock|stamp|unix|uptime", re.IGNORECASE)
_TIME_NAMES = re.compile(r"t|ts|[nuµm]?s|sec(ond)?s?|(milli|micro|nano)s(ec)?(onds?)?|millis", re.IGNORECASE)
_NEAR, _MOST = 0.1, 0.95


class Clock(NamedTuple):
    """The time of each row.

    Attributes:
        at: (T,) float64, in seconds where `known`, else in whatever the file counts in.
        known: whether `at` is in seconds.
        step: usual distance of two rows, in the unit of `at`.
        even: whether (nearly) all steps are that, or whole multiples of it where rows are missing.
    """

    at: np.ndarray
    known: bool
    step: float
    even: bool

    @property
    def rate(self) -> float | None:
        """Rows per second, or None where the unit is not known."""
        return 1.0 / self.step if self.known else None


def seconds_of_text(cells: Any) -> np.ndarray | None:
    """Text time stamps (N,) as seconds float64, NaN for null; None where some cell is no stamp.

    ``2024-05-01T12:00:00.25+02:00``, ``1.5.2024 12:00``, ``5/1/2024 3:04:05 PM``, ``12:00:00,250`` and the like. The
    day comes before the month where some first number is above 12 or points part them, after it with slashes
    otherwise. Without a date a time that goes back by more than half a day has passed midnight.

    Args:
        cells: Arrow array of text.
    """
    import pyarrow.compute as pc  # here, so that opening images does not wait for it

    parts = pc.extract_regex(cells, _STAMP)
    there = pc.is_valid(cells).to_numpy(zero_copy_only=False)
    if pc.is_valid(parts).to_numpy(zero_copy_only=False).sum() < there.sum():
        return None
    raw = {
        key: pc.fill_null(pc.struct_field(parts, key), "")
        for key in ("a", "b", "c", "h", "m", "s", "f", "half", "zone")
    }
    text = {key: np.asarray(value.to_numpy(zero_copy_only=False), dtype=str) for key, value in raw.items()}
    dated, timed = text["a"] != "", text["h"] != ""
    if not (dated | timed)[there].all() or (dated[there].any() and not dated[there].all()):
        return None
    number = {key: _whole(text[key]) for key in ("h", "m", "s")}
    clock = number["h"] * 3600 + number["m"] * 60 + number["s"]
    clock += _whole(text["f"]) / np.power(10.0, np.char.str_len(text["f"]))
    half = np.char.lower(text["half"])
    clock += np.where((half == "pm") & (number["h"] < 12), 43_200, 0) - np.where(
        (half == "am") & (number["h"] == 12), 43_200, 0
    )
    clock -= _zones(text["zone"])
    if dated[there].any():
        days = _days(text["a"], text["b"], text["c"], there, cells)
        if days is None:
            return None
        clock += days * _DAY
    clock[~there] = np.nan
    return clock if dated[there].any() else _past_midnight(clock)


def _whole(text: np.ndarray) -> np.ndarray:
    return np.where(text == "", "0", text).astype(np.float64)


def _zones(text: np.ndarray) -> np.ndarray:
    numeric = np.char.startswith(text, "+") | np.char.startswith(text, "-")
    plain = np.char.ljust(np.char.replace(np.where(numeric, text, "+0000"), ":", ""), 5, "0")
    found, which = np.unique(plain, return_inverse=True)
    shift = [(-1 if z[0] == "-" else 1) * (int(z[1:3]) * 3600 + int(z[3:5]) * 60) for z in found.tolist()]
    return np.array(shift, dtype=np.float64)[which]


def _days(a: np.ndarray, b: np.ndarray, c: np.ndarray, there: np.ndarray, cells: Any) -> np.ndarray | None:
    """Days since 1970 of dates in three parts, NaN-free (0 where there is none); None where they are no dates."""
    rows = np.char.add(np.char.add(np.char.add(a, "-"), np.char.add(b, "-")), c)
    found, which = np.unique(rows, return_inverse=True)
    split = [row.split("-") for row in found.tolist() if row != "--"]
    firsts = [int(p[0]) for p in split if len(p[0]) < 3]
    slashes = "/" in str(cells[int(np.flatnonzero(there)[0])])
    day_first = any(f > 12 for f in firsts) or (not slashes)
    if slashes and any(p[1].isdigit() and int(p[1]) > 12 for p in split if len(p[0]) < 3):
        day_first = False
    days = []
    for row in found.tolist():
        if row == "--":
            days.append(0.0)
            continue
        p = row.split("-")
        month_text = p[1].lower()
        if not month_text.isdigit() and month_text not in _MONTHS:
            return None
        middle = int(month_text) if month_text.isdigit() else _MONTHS.index(month_text) + 1
        if len(p[0]) == 4:
            year, month, day = int(p[0]), middle, int(p[2])
        else:
            year = int(p[2]) + (2000 if len(p[2]) <= 2 else 0)
            month, day = (middle, int(p[0])) if day_first or not month_text.isdigit() else (int(p[0]), middle)
        try:
            days.append(float(np.datetime64(f"{year:04d}-{month:02d}-{day:02d}", "D").astype(np.int64)))
        except ValueError:
            return None
    return np.array(days)[which]


def _past_midnight(clock: np.ndarray) -> np.ndarray:
    steps = np.diff(clock, prepend=clock[:1])
    return clock + _DAY * np.cumsum(np.where(np.nan_to_num(steps) < -_DAY / 2, 1, 0))


def like_time(name: str) -> bool:
    """Whether a column of this name is likely to hold the time."""
    bare = re.sub(r"[\s_]*[(\[].*[)\]]$", "", name.strip())
    return bool(_TIME_NAMES.fullmatch(bare) or _TIME_WORDS.search(bare))


def rising(values: np.ndarray, strictly: bool = False) -> bool:
    """Whether values rise from row to row, but for at most one step in five (a clock that is set back now and then)."""
    steps = np.diff(values[np.isfinite(values)])
    if len(steps) < 2 or not (steps > 0).any():
        return False
    if strictly:
        return bool((steps > 0).all())
    return int((steps < 0).sum()) <= len(steps) // 5


def unit_of(name: str, values: np.ndarray, asked: str | None = None) -> float | None:
    """Seconds in one unit of a numeric time column, or None where neither name nor values tell.

    The unit is the one asked for, else the one in the name (``time_ms``, ``t (s)``), else that of a Unix time (10
    digits: seconds, 13: ms, 16: us, 19: ns), else seconds where there are fractions.
    """
    if asked is not None:
        return UNITS[asked]
    word = re.search(r"(?:^|[\s_(\[])([A-Za-zµμ]+)[)\]]?$", name.strip())
    for pattern, unit in _SPELT:
        if word and re.fullmatch(pattern, word.group(1), re.IGNORECASE):
            return UNITS[unit]
    finite = values[np.isfinite(values)]
    digits = int(np.log10(max(abs(float(np.median(finite))), 1.0))) + 1
    if digits in (10, 13, 16, 19):
        return {10: 1.0, 13: 1e-3, 16: 1e-6, 19: 1e-9}[digits]
    return 1.0 if like_time(name) and not np.array_equal(finite, np.round(finite)) else None


def clock_of(values: np.ndarray, factor: float | None) -> Clock | None:
    """The clock of a time column, or None where it does not run.

    Rows that share a stamp (a clock of whole seconds at 50 Hz) are spread evenly up to the next one.

    Args:
        values: (T,) the column, NaN where a stamp is missing.
        factor: seconds in one unit, or None.
    """
    known = np.isfinite(values)
    if known.sum() < 3:
        return None
    rows = np.arange(len(values), dtype=np.float64)
    first = values[known][0]
    at = np.interp(rows, rows[known], (values[known] - first) * (factor or 1.0))
    at = _spread(at)
    steps = np.diff(at)
    forward = steps[steps > 0]
    if not len(forward):
        return None
    step = float(np.median(forward))
    if factor is None and np.array_equal(np.unique(forward), [1.0]):
        return Clock(at, False, 1.0, True)
    few = forward / step
    near = np.abs(few - np.maximum(np.round(few), 1)) <= _NEAR
    return Clock(at, factor is not None, step, bool(near.mean() >= _MOST))


def _spread(at: np.ndarray) -> np.ndarray:
    new = np.flatnonzero(np.diff(at, prepend=at[0] - 1) != 0)
    counts = np.diff(np.append(new, len(at)))
    if counts.max() == 1 or len(new) < 2:
        return at
    length = np.diff(at[new])
    usual = np.median(length[length > 0] / counts[:-1][length > 0]) if (length > 0).any() else 0.0
    each = np.append(length / counts[:-1], usual)
    each = np.where((each <= 0) | (each > 3 * usual), usual, each)
    return at[new].repeat(counts) + (np.arange(len(at)) - new.repeat(counts)) * each.repeat(counts)


def resample(values: np.ndarray, at: np.ndarray, step: float, new_step: float) -> np.ndarray:
    """Values (T, C) at the times `at` as values at even times, `new_step` apart, from the first time on.

    In between it is linear. Where the new step is longer the values are first averaged over twice its length (a
    triangle), so that what is faster than half the new rate does not come back as something slow.

    Args:
        values: (T, C), finite.
        at: (T,) rising.
        step: usual step of `at`.
        new_step: of the result.
    """
    ratio = new_step / step
    if ratio > 1.02:
        fine = np.arange(0.0, at[-1] - at[0] + step / 2, step)
        values = np.stack([np.interp(fine, at - at[0], column) for column in values.T], axis=1)
        at = fine
        reach = int(np.ceil(ratio))
        window = np.maximum(1 - np.abs(np.arange(-reach, reach + 1)) / ratio, 0)
        weight = np.convolve(np.ones(len(values)), window, "full")[reach : reach + len(values)]
        values = np.stack([np.convolve(c, window, "full")[reach : reach + len(c)] / weight for c in values.T], axis=1)
    grid = np.arange(0.0, at[-1] - at[0] + new_step * 1e-6, new_step)
    return np.stack([np.interp(grid, at - at[0], column) for column in values.T], axis=1)
