"""From the columns of a text table to a recording: which column is the time, which are channels, what about gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from selftaught.data.clocks import Clock, clock_of, like_time, resample, rising, unit_of
from selftaught.data.spec import near
from selftaught.errors import SampleError, UserError

if TYPE_CHECKING:
    from selftaught.data.tables import Column, Table

_COUNTERS = (
    "", "#", "index", "idx", "row", "no", "no.", "nr", "n", "sample", "samples", "frame", "packet", "counter", "count",
    "seq", "sequence", "line", "unnamed: 0", "rowid",
)  # fmt: skip
_TAGS = (
    "id", "label", "labels", "class", "target", "activity", "subject", "subject_id", "subjectid", "user", "user_id",
    "userid", "person", "participant", "session", "trial", "recording", "activity_id", "activityid", "class_id",
)  # fmt: skip
_SAME_RATE, _SWAPPED, _LIKE_UNIX = 0.02, 20.0, 1e8


@dataclass(frozen=True)
class Wanted:
    """What was asked for: columns by name or number, the time column ("none": there is none), its unit, the rate in Hz
    that all shall have, and the longest gap in instants that is filled.
    """

    columns: tuple[str, ...] | None = None
    time: str | None = None
    unit: str | None = None
    rate: float | None = None
    gap: int = 5


class Plan(NamedTuple):
    """What holds for all files: the names of the channels, whether headers gave them, and the rate to bring all to."""

    channels: tuple[str, ...]
    header: bool
    rate: float | None


class Recording(NamedTuple):
    """One recording on even steps.

    Attributes:
        values: (C, T) float32, finite; its pieces one after the other.
        pieces: (offset, start, stop) of each: `values[:, start:stop]` begins `offset` instants after the file's start.
        rate: in Hz, or None where it is not known.
        line: what was taken for what.
    """

    values: np.ndarray
    pieces: list[tuple[int, int, int]]
    rate: float | None
    line: str


@dataclass
class Roles:
    """What each column of one file is ("time", "counter", "tag", "constant", "text", "empty" or "channel"), and the
    value of those channels that have only one.
    """

    by_name: dict[str, str] = field(default_factory=dict)
    constant: dict[str, float] = field(default_factory=dict)
    time: Column | None = None
    clock: Clock | None = None


def roles_of(table: Table, wanted: Wanted, name: str) -> Roles:
    """What the columns of a file are taken for.

    The time is the column asked for, else one of text stamps, else a rising one that is called so or as large as a Unix
    time, else, without a header, the first that changes, if it rises all the way. What counts rows or
    names the subject, the session or the class is no channel, and neither are further columns of time.

    Raises:
        SampleError: the time column asked for is not there or doesn't rise.
    """
    names = [column.name for column in table.columns]
    asked = None
    if wanted.time is not None and wanted.time.lower() != "none":
        asked = find_column(wanted.time, names)
        if asked is None:
            raise SampleError(name, f"no column {wanted.time!r}")
    roles = Roles()
    guess = wanted.time is None or wanted.time.lower() != "none"
    for c, column in enumerate(table.columns):
        roles.by_name[column.name] = "time" if column.name == asked else _role(column, c, table, guess)
    channels = [c for c in table.columns if roles.by_name[c.name] == "channel"]
    roles.constant = {c.name: float(c.values[0]) for c in channels if (c.values == c.values[0]).all()}
    if len(table.columns) > 1 and set(roles.by_name.values()) <= {"time"} and asked is None and not table.header:
        roles.by_name = dict.fromkeys(names, "channel")  # nothing but ramps: they are the data
    roles.time, roles.clock = _clock(table, roles, wanted, asked)
    if asked is not None and roles.clock is None:
        raise SampleError(name, f"the time column {asked!r} holds no rising time")
    return roles


def _role(column: Column, c: int, table: Table, guess: bool) -> str:
    if column.kind in ("empty", "text"):
        return column.kind
    if column.kind == "stamp":
        return "time"
    called = column.name.strip().casefold().rstrip("#. ") or column.name.strip()
    if table.header:
        if (called in _COUNTERS or called.endswith("counter")) and len(table.columns) > 1 and rising(column.values):
            return "counter"
        if called in _TAGS and len(table.columns) > 1:
            return "tag"
        clock = like_time(called) or np.nanmedian(column.values) > _LIKE_UNIX
        return "time" if guess and clock and rising(column.values) else "channel"
    if guess and len(table.columns) > 1 and table.rows > 3 and rising(column.values, strictly=True):
        before = [other for other in table.columns[:c] if other.kind == "number" and np.ptp(other.values) > 0]
        return "time" if not before or np.nanmedian(column.values) > _LIKE_UNIX else "channel"
    return "channel"


def _clock(table: Table, roles: Roles, wanted: Wanted, asked: str | None) -> tuple[Column | None, Clock | None]:
    """The column that tells the time, text stamps first, and its clock; a date and a time of day are added up."""
    found: list[tuple[Column, Clock]] = []
    stamps = [c for c in table.columns if c.kind == "stamp"]
    dates = [c for c in stamps if not (c.values % 86_400)[np.isfinite(c.values)].any()]
    clocks = [c for c in stamps if all(c is not d for d in dates)]
    if asked is None and dates and clocks and np.nanmax(clocks[0].values) < 2 * 86_400 < np.nanmax(dates[0].values):
        both = clocks[0]._replace(
            name=f"{dates[0].name} {clocks[0].name}", values=dates[0].values + clocks[0].values % 86_400
        )
        clock = clock_of(both.values, 1.0)
        if clock is not None:
            return both, clock
    for column in [*clocks, *dates, *(c for c in table.columns if c.kind == "number")]:
        if roles.by_name[column.name] == "time" and (asked is None or column.name == asked):
            factor = 1.0 if column.kind == "stamp" else unit_of(column.name, column.values, wanted.unit)
            clock = clock_of(column.values, factor)
            if clock is not None:
                found.append((column, clock))
    known = [pair for pair in found if pair[1].known]
    return (known or found)[0] if found else (None, None)


def plan(name: str, tables: Sequence[tuple[Table, Roles]], wanted: Wanted) -> Plan:
    """What holds for all files: a column is a channel by its name, wherever it stands.

    The channels are those that most files have. The rate is the one asked for, else the one that most files have.

    Raises:
        UserError: no file has the columns asked for, or none has a channel.
    """
    names = {c.name: None for table, _ in tables for c in table.columns}
    _tag_constants([roles for _, roles in tables])
    header = Counter(table.header for table, _ in tables).most_common(1)[0][0]
    if wanted.columns is not None:
        channels = _asked(name, tables, wanted.columns, list(names))
    else:
        channels = _common([(t, r) for t, r in tables if t.header == header])
    if not channels:
        found = ", ".join(f"{c or '(no name)'} ({r})" for c, r in tables[0][1].by_name.items())
        raise UserError(f"{name}: no column of numbers to take as a channel; say columns=NAME,NAME; there are {found}")
    rate = wanted.rate
    if rate is None:
        rates = [float(f"{r.clock.rate:.3g}") for _, r in tables if r.clock is not None and r.clock.rate is not None]
        times = Counter(rates)
        if rates and max(rates) > (1 + _SAME_RATE) * min(rates):
            rate = min(times, key=lambda r: (-times[r], r))
    return Plan(tuple(channels), header, rate)


def _tag_constants(found: Sequence[Roles]) -> None:
    """What never changes within a file, but from file to file, tells who or what was recorded: it is no channel, unless
    nothing else is.
    """
    if all(role != "channel" or name in roles.constant for roles in found for name, role in roles.by_name.items()):
        return
    for name in {name for roles in found for name in roles.constant}:
        files = [roles for roles in found if roles.by_name.get(name) == "channel"]
        values = {roles.constant.get(name) for roles in files}
        if None not in values and len(values) > 1:
            for roles in files:
                roles.by_name[name] = "constant"


def _asked(name: str, tables: Sequence[tuple[Table, Roles]], columns: Sequence[str], names: list[str]) -> list[str]:
    for table, _ in tables:
        found = [find_column(column, [c.name for c in table.columns]) for column in columns]
        if all(f is not None for f in found):
            kinds = {c.name: c.kind for c in table.columns}
            words = [f for f in found if kinds[str(f)] in ("text", "stamp")]
            if words:
                raise UserError(f"{name}: columns={','.join(columns)}: {words[0]!r} holds text, not numbers")
            return [str(f) for f in found]
    lost = next((c for c in columns if find_column(c, names) is None), columns[0])
    raise UserError(f"{name}: no column {lost!r}{near(lost, names)}; there are {', '.join(names)}")


def _common(tables: Sequence[tuple[Table, Roles]]) -> list[str]:
    """The channels of most files, in the order of the first of them; a column is what it is in most files."""
    votes: dict[str, Counter[str]] = {}
    for _, roles in tables:
        for column, role in roles.by_name.items():
            if role != "empty":
                votes.setdefault(column.casefold(), Counter())[role] += 1
    held = {c: max(count, key=lambda r: (count[r], r != "text", r != "channel")) for c, count in votes.items()}
    sets: dict[frozenset[str], list[str]] = {}
    times: Counter[frozenset[str]] = Counter()
    for table, _ in tables:
        own = [c.name for c in table.columns if held.get(c.name.casefold()) == "channel"]
        key = frozenset(c.casefold() for c in own)
        sets.setdefault(key, own)
        times[key] += 1
    return sets[max(times, key=lambda key: times[key])] if times else []


def take(table: Table, roles: Roles, plan: Plan, wanted: Wanted, name: str) -> Recording:
    """The recording in a file: its channels in the order of the plan, on even steps, gaps filled or cut out.

    Gaps of at most `wanted.gap` instants, of single values or of whole rows by the clock, are filled linearly; longer
    ones part the recording into pieces, and so does a clock that is set back. Rows at the start and the end that lack
    a value are left out.

    Raises:
        SampleError: a channel is missing or empty, or the file has other channels than the source.
    """
    columns = _channels(table, roles, plan, name)
    values: np.ndarray = np.stack([c.values for c in columns], axis=1)
    if np.isinf(values).any():
        raise SampleError(name, "infinite values")
    missing: np.ndarray = np.isnan(values)
    clock = roles.clock
    at = np.arange(len(values), dtype=np.float64) if clock is None else clock.at
    if clock is not None and 0 > np.diff(at).min(initial=0.0) > -_SWAPPED * clock.step:  # rows that changed places
        order = np.argsort(at, kind="stable")
        values, missing, at = values[order], missing[order], at[order]
    pieces, filled = _pieces(values, missing, at, 1.0 if clock is None else clock.step, wanted.gap)
    if not pieces:
        raise SampleError(name, "no run of rows without missing values")
    step, new_step, straight = _steps(clock, plan)
    parts, places, length = [], [], 0
    for first, last in pieces:
        part, added = _even(values[first:last], at[first:last], step, new_step, straight)
        offset = first if straight and clock is None else round((at[first] - at[0]) / new_step)
        places.append((int(offset), length, length + len(part)))
        parts.append(part)
        length += len(part)
        filled += added
    rate = wanted.rate if clock is None or not clock.known else 1.0 / new_step
    line = _line(table, roles, [c.name for c in columns], clock, rate, not straight, filled, len(pieces))
    joined = np.concatenate(parts).T
    return Recording(np.ascontiguousarray(joined, dtype=np.float32), places, rate, line)


def _channels(table: Table, roles: Roles, plan: Plan, name: str) -> list[Column]:
    found: list[Column] = []
    own = {c.name.casefold(): c for c in table.columns}
    if table.header != plan.header:
        taken = [c for c in table.columns if roles.by_name[c.name] in ("channel", "empty")]
        if len(taken) != len(plan.channels):
            raise SampleError(name, f"{len(taken)} channels where the source has {len(plan.channels)}")
        found = taken
    else:
        extra = [c.name for c in table.columns if roles.by_name[c.name] == "channel" and c.name not in plan.channels]
        lost = [c for c in plan.channels if c.casefold() not in own]
        if not plan.header and (lost or extra) and len(plan.channels) != len(table.columns):
            have = sum(role == "channel" for role in roles.by_name.values())
            if have != len(plan.channels):
                raise SampleError(name, f"{have} channels where the source has {len(plan.channels)}")
        if lost:
            raise SampleError(name, f"no column {lost[0]!r}{near(lost[0], list(roles.by_name))}")
        found = [own[c.casefold()] for c in plan.channels]
    for column in found:
        if column.kind != "number":
            raise SampleError(name, f"column {column.name!r} is {'empty' if column.kind == 'empty' else 'text'}")
    return found


def _steps(clock: Clock | None, plan: Plan) -> tuple[float, float, bool]:
    """(own step, step of the result, whether rows stay as they are but for gaps)."""
    if clock is None:
        return 1.0, 1.0, True
    if not clock.known or plan.rate is None:
        return clock.step, clock.step, clock.even
    same = abs(1.0 / clock.step / plan.rate - 1) <= _SAME_RATE
    return clock.step, clock.step if same and clock.even else 1.0 / plan.rate, same and clock.even


def _pieces(
    values: np.ndarray, missing: np.ndarray, at: np.ndarray, step: float, gap: int
) -> tuple[list[tuple[int, int]], int]:
    """Runs of rows (first, last + 1) without a long gap, the short ones filled in place; and how many values were."""
    whole = np.asarray(~missing.any(axis=1))
    cut = np.zeros(len(values), dtype=bool)
    for column in range(values.shape[1]):
        start, stop = _runs(missing[:, column])
        for a, b in zip(start.tolist(), stop.tolist(), strict=True):
            around = at[min(b, len(at) - 1)] - at[max(a - 1, 0)]
            if b - a > gap or around > (gap + 1.5) * step:
                cut[a:b] = True
    steps = np.diff(at, prepend=at[0])
    broken: np.ndarray = (steps > (gap + 1.5) * step) | (steps < 0)
    begins = ~cut & (np.concatenate([[True], cut[:-1]]) | broken)
    ends = np.append(np.flatnonzero(cut | begins), len(values))
    pieces, filled = [], 0
    for first in np.flatnonzero(begins).tolist():
        last = int(ends[np.searchsorted(ends, first, side="right")])
        good = np.flatnonzero(whole[first:last])
        if len(good):
            first, last = first + int(good[0]), first + int(good[-1]) + 1
            filled += _fill(values[first:last], missing[first:last], at[first:last])
            pieces.append((first, last))
    return pieces, filled


def _runs(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _fill(values: np.ndarray, missing: np.ndarray, at: np.ndarray) -> int:
    for column in np.flatnonzero(missing.any(axis=0)).tolist():
        hole = missing[:, column]
        values[hole, column] = np.interp(at[hole], at[~hole], values[~hole, column])
    return int(missing.sum())


def _even(values: np.ndarray, at: np.ndarray, step: float, new_step: float, straight: bool) -> tuple[np.ndarray, int]:
    """One piece on even steps, and how many values were put in for missing rows."""
    if len(values) < 2:
        return values, 0
    if not straight:
        return resample(values, at, step, new_step), 0
    places = np.concatenate([[0], np.cumsum(np.maximum(np.round(np.diff(at) / step), 1))])
    added = int(places[-1]) + 1 - len(values)
    return (resample(values, places, 1.0, 1.0), added * values.shape[1]) if added else (values, 0)


def _line(
    table: Table,
    roles: Roles,
    channels: list[str],
    clock: Clock | None,
    rate: float | None,
    resampled: bool,
    filled: int,
    pieces: int,
) -> str:
    """What was taken for what in one file, in one line."""
    parts = ["channels " + " ".join(channels)] if table.header else [f"{len(channels)} channels"]
    time = roles.time.name if roles.time is not None and clock is not None else None
    if time is not None and clock is not None:
        known = f" ({rate:.4g} Hz)" if rate is not None else ""
        before = f"{clock.rate:.4g} Hz" if clock.even and clock.rate is not None else "uneven steps"
        was = f", resampled from {before}"
        parts.append(f"time {time!r}{known}{was if resampled else ''}")
    out = {}
    for column, role in roles.by_name.items():
        if column not in channels and (time is None or column not in time):
            out[column] = role if role != "channel" else "not chosen"
    if out:
        parts.append("left out " + ", ".join(f"{c!r} ({r})" for c, r in out.items()))
    if filled:
        parts.append(f"{filled} missing values filled")
    if pieces > 1:
        parts.append(f"parted at long gaps into {pieces}")
    return "; ".join(parts + table.notes)


def find_column(wanted: str, names: Sequence[str]) -> str | None:
    """The column meant by a name (any case) or by a number from 0, or None."""
    bare = {name.partition(" (")[0].casefold(): name for name in reversed(names)}  # a unit behind it may be left out
    folded = bare | {name.casefold(): name for name in reversed(names)}
    if wanted in names:
        return wanted
    if wanted.casefold() in folded:
        return folded[wanted.casefold()]
    return names[int(wanted)] if wanted.isdigit() and int(wanted) < len(names) else None
