"""Several devices worn together: ``devices:FOLDER`` with a table per device, or ``devices:FILE.npz``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from selftaught._paths import expanded
from selftaught._reading import regular
from selftaught._words import plural
from selftaught.data.arrays import GROUP_KEYS, LABEL_KEYS
from selftaught.data.combining.devices import Devices, align, windows_of_arrays
from selftaught.data.files import walk
from selftaught.data.formats._format import Format
from selftaught.data.labelling import labelling
from selftaught.data.mapped import NO_ARCHIVE
from selftaught.data.recordings import Wanted, plan, roles_of
from selftaught.data.series import TABLE_SUFFIXES
from selftaught.data.source import Source
from selftaught.errors import SampleError, UserError

__all__ = ["FORMATS", "open_devices"]


class _File(NamedTuple):
    recording: str
    device: str
    path: str


def open_devices(
    address: str,
    *,
    window: int = 150,
    step: int | None = None,
    rate: float | None = None,
    devices: Any = None,
    columns: Any = None,
    time: str | None = None,
    unit: str | None = None,
    label: str | None = None,
    user: int = 1,
    gap: float = 0.1,
    missing: str = "recording",
    scale: float = 1.0,
) -> Source:
    """Windows of several devices at once, aligned by their time stamps.

    In a folder every table is one device's recording and is called like the device; the folders above say whose:
    ``anna/walking/wrist.csv``, ``anna/walking/ankle.csv``. The first folder is the user, whose windows stay in one
    split; the last one, where there are two or more, the class. ``anna_walking_wrist.csv`` means the same. A .npz file
    holds ``x`` (N, D, C, T), and may hold ``y``, ``subject`` (or ``group``, ``user``) and ``devices``.

    Args:
        address: folder or file.
        window: instants in a sample; 3 seconds at 50 Hz.
        step: instants between the starts of two windows; None: ``window``.
        rate: in Hz that all devices are brought to; None: the slowest of their usual rates.
        devices: those to take, parted by commas, the first one first; None: those that most recordings are of.
        columns: the channels, by name or number, parted by commas, alike in every file; None: all columns of numbers
            that are no time, counter or tag. The first three are taken for the acceleration.
        time: column of the time; None: told by its content and name. Without any, rows count (then give ``rate``).
        unit: of a numeric time column: s, ms, us, ns, min or h.
        label: column of the class (of each row; a window has that of most); None: the folder.
        user: how many folders from the top name the user; 0: every recording is one's own.
        gap: longest time between two rows that is bridged, in seconds; windows across longer ones are left out.
        missing: "recording": leave out recordings that lack one of the devices; "device": take only devices that all
            recordings have.
        scale: every value is divided by it (30 for RealWorld and HHAR, 15 for PAMAP2).

    Raises:
        UserError: nothing there; fewer than two devices; no recording of all; a file without time and no rate.
    """
    path = expanded(address)
    if missing not in ("recording", "device"):
        raise UserError(f"devices:{address}: missing={missing} is neither recording nor device")
    if not scale > 0 or not gap > 0:
        raise UserError(f"devices:{address}: scale={scale} and gap={gap} must be positive")
    asked = [d.strip() for d in devices.split(",")] if isinstance(devices, str) else devices
    if path.suffix.lower() == ".npz":
        return _of_arrays(path, asked, scale)
    files = _files(path, address)
    taken, kept, notes = _choose(files, asked, missing, address)
    chosen = None if columns is None else tuple(c.strip() for c in str(columns).split(","))
    wanted = Wanted(chosen, time, unit, None, 0)
    tables = {file: _table(path, file, wanted) for file in files if file.recording in kept and file.device in taken}
    bad = {file: found for file, found in tables.items() if isinstance(found, str)}
    kept = [name for name in kept if not any(file.recording == name for file in bad)]
    if not kept:
        file, reason = next(iter(bad.items()))
        raise UserError(f"devices:{address}: no recording can be used, {file.path}: {reason}")
    read = _Reader({file: t for file, t in tables.items() if file.recording in kept}, wanted, label, rate, gap, address)
    recordings = [read.recording(name, taken) for name in kept]
    source = Devices([r for r, _ in recordings], kept, f"{path.resolve().name}/", window=window, step=step,
                     devices=taken, rate=read.rate)  # fmt: skip
    for rows in source._recordings:
        rows /= scale
    _describe(source, kept, [labels for _, labels in recordings], user)
    source.notes = [*notes, *source.notes, *(f"{file.path}: {reason}" for file, reason in bad.items())]
    return source


def _files(path: Path, address: str) -> list[_File]:
    names = walk(path, TABLE_SUFFIXES) if path.is_dir() else []
    if not names:
        raise UserError(
            f"devices:{address}: no recording there; looked for {' '.join(TABLE_SUFFIXES)} in a folder, or .npz"
        )
    found = []
    for name in names:
        place = PurePosixPath(name)
        folders, stem = list(place.parts[:-1]), place.stem
        if not folders and "_" in stem:
            *folders, stem = stem.split("_")
        found.append(_File("/".join(folders) or "all", stem, name))
    return found


def _choose(
    files: list[_File], asked: list[str] | None, missing: str, address: str
) -> tuple[list[str], list[str], list[str]]:
    """The devices to take, the recordings that have all of them, and lines on those that are left out."""
    by_recording: dict[str, set[str]] = {}
    for file in files:
        by_recording.setdefault(file.recording, set()).add(file.device)
    counts = Counter(file.device for file in files)
    every = list(dict.fromkeys(file.device for file in files))
    if asked is not None:
        lost = next((d for d in asked if d not in counts), None)
        if lost is not None:
            raise UserError(f"devices:{address}: no device {lost!r}; there are {', '.join(every)}")
        taken = list(asked)
    elif missing == "device":
        taken = [d for d in every if counts[d] == len(by_recording)]
    else:
        sets = Counter(frozenset(held) for held in by_recording.values())
        usual = max(sets, key=lambda held: (sets[held], len(held)))
        taken = [d for d in every if d in usual]
    if len(taken) < 2:
        raise UserError(
            f"devices:{address}: fewer than two devices in all recordings ({', '.join(every)}); a file is called "
            "like its device, its folder says whose it is: anna/walking/wrist.csv"
        )
    kept = [name for name, held in by_recording.items() if set(taken) <= held]
    if not kept:
        raise UserError(f"devices:{address}: no recording has all of {', '.join(taken)}; name fewer with devices=")
    short = [name for name in by_recording if name not in kept]
    unused = [d for d in every if d not in taken] if asked is None else []
    notes = []
    if short:
        some = ", ".join(short[:3]) + (" ..." if len(short) > 3 else "")
        notes.append(f"{plural(len(short), 'recording')} without all of {', '.join(taken)} left out: {some}")
    if unused:
        notes.append(
            f"not used, for too few recordings have them: {', '.join(unused)}; name devices to take with devices="
        )
    return taken, kept, notes


def _table(root: Path, file: _File, wanted: Wanted) -> Any:
    from selftaught.data.tables import read_table

    try:
        table = read_table(root / file.path, file.path)
        return table, roles_of(table, wanted, file.path)
    except SampleError as error:
        return error.reason


class _Reader:
    """Recordings of several devices on one clock."""

    def __init__(
        self, tables: dict[_File, Any], wanted: Wanted, label: str | None, rate: float | None, gap: float, address: str
    ) -> None:
        self.tables, self.label, self.gap, self.where = tables, label, gap, f"devices:{address}"
        for _, roles in tables.values():
            if label is not None and label in roles.by_name:
                roles.by_name[label] = "tag"
        self.plan = plan(self.where, list(tables.values()), wanted)
        rates = [r.clock.rate for _, r in tables.values() if r.clock is not None and r.clock.rate is not None]
        self.rate = rate if rate is not None else min(rates, default=None)
        if self.rate is None or not 0 < self.rate < float("inf"):
            raise UserError(f"{self.where}: its files tell no rate; say rate=HZ")

    def recording(self, name: str, devices: list[str]) -> tuple[dict[str, np.ndarray], list[str] | None]:
        """device -> (C, T), and the label of each instant where the tables have them."""
        parts, labelled = {}, None
        for file, (table, roles) in self.tables.items():
            if file.recording == name:
                at, values, rows = self._values(file, table, roles)
                parts[file.device] = (at, values)
                if self.label is not None and file.device == devices[0]:
                    labelled = at, self._labels(file, table, rows)
        assert self.rate is not None
        try:
            found, start = align({d: parts[d] for d in devices}, self.rate, self.gap)
        except UserError as error:
            raise UserError(f"{self.where}: {name}: {error}") from None
        if labelled is None:
            return found, None
        grid = start + np.arange(found[devices[0]].shape[1]) / self.rate
        nearest = np.searchsorted(labelled[0], grid).clip(0, len(labelled[0]) - 1)
        return found, [labelled[1][k] for k in nearest]

    def _values(self, file: _File, table: Any, roles: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times in seconds, values (T, C), and the rows that they are from: rising, without missing values."""
        own = {c.name.casefold(): c for c in table.columns}
        lost = [c for c in self.plan.channels if c.casefold() not in own or own[c.casefold()].kind != "number"]
        if lost:
            raise UserError(f"{self.where}: {file.path} has no column {lost[0]!r} of numbers; name them with columns=")
        values = np.stack([own[c.casefold()].values for c in self.plan.channels], axis=1)
        assert self.rate is not None
        at = np.arange(len(values)) / self.rate if roles.clock is None else _seconds(roles)
        good = np.flatnonzero(np.isfinite(values).all(1))
        good = good[np.argsort(at[good], kind="stable")]
        good = good[np.concatenate([[True], np.diff(at[good]) > 0])] if len(good) else good
        if len(good) < 2:
            raise UserError(f"{self.where}: {file.path} has no two rows with all values")
        return at[good], values[good], good

    def _labels(self, file: _File, table: Any, rows: np.ndarray) -> list[str]:
        column = next((c for c in table.columns if c.name == self.label), None)
        if column is None or column.kind != "number":
            raise UserError(f"{self.where}: {file.path} has no column {self.label!r} of class numbers; leave label out")
        return [f"{value:g}" if np.isfinite(value) else "" for value in column.values[rows]]


def _seconds(roles: Any) -> np.ndarray:
    """The clock of a table as seconds since a time that all tables share: its stamps, not its first row."""
    clock, column = roles.clock, roles.time
    known = column.values[np.isfinite(column.values)]
    span = known[-1] - known[0]
    factor = (clock.at[-1] - clock.at[0]) / span if span else 1.0
    return known[0] * factor + clock.at


def _describe(source: Devices, stems: list[str], labels: list[list[str] | None], user: int) -> None:
    """Groups by user, and classes by the label's column or the last folder."""
    parts = [stem.split("/") for stem in stems]
    if any(len(p) > 1 for p in parts) or user == 0:
        who = ["/".join(p[:user]) if user else stem for p, stem in zip(parts, stems, strict=True)]
    else:
        who = list(stems)
    users, codes = np.unique(who, return_inverse=True)
    source.groups, source.group_names = codes.astype(np.int64)[source.recording], users.tolist()
    values: list[str] | None = None
    if all(rows is not None for rows in labels):
        values = [_most(labels[r][start : start + source.window]) for r, start in source.places.tolist()]
    elif all(len(p) > max(user, 1) for p in parts):
        values = [parts[r][-1] for r in source.recording.tolist()]
    if values is not None:
        found = labelling(values)
        source.labels, source.classes, source.given = found.labels, found.classes, found.given


def _most(values: list[str]) -> str:
    return Counter(values).most_common(1)[0][0]


def _of_arrays(path: Path, asked: list[str] | None, scale: float) -> Devices:
    try:
        table = dict(np.load(regular(path), allow_pickle=False))
    except (OSError, *NO_ARCHIVE) as error:
        raise UserError(f"devices:{path}: can't be read ({error})") from None
    if "x" not in table:
        raise UserError(f"devices:{path}: holds no x (N, D, C, T); it has {', '.join(table)}")
    x, called = windows_of_arrays(table["x"] / scale, table.get("devices"), path.name)
    channels = x.shape[1] // len(called)
    recordings = [{d: row[k * channels : (k + 1) * channels] for k, d in enumerate(called)} for row in x]
    stems = [f"{i:05d}" for i in range(len(x))]
    source = Devices(recordings, stems, path.name, window=x.shape[2], devices=asked or called)
    if len(source) != len(x):
        raise UserError(f"devices:{path}: {len(x) - len(source)} windows hold NaN; leave them out of the file")
    labels, users = (next((key for key in keys if key in table), "") for keys in (LABEL_KEYS, GROUP_KEYS))
    for key in filter(None, (labels, users)):
        if table[key].shape != (len(x),):
            raise UserError(f"devices:{path}: {key} is {table[key].shape} for {len(x)} windows")
    if labels:
        found = labelling(table[labels])
        source.labels, source.classes, source.given = found.labels, found.classes, found.given
    if users:
        names, codes = np.unique(table[users], return_inverse=True)
        source.groups, source.group_names = codes.astype(np.int64), [str(name) for name in names]
    unread = [key for key in table if key not in ("x", "devices", labels, users)]
    if unread:
        known = f"labels are called {' or '.join(LABEL_KEYS)}, users {' or '.join(GROUP_KEYS)}"
        source.notes = [*source.notes, f"left out: {', '.join(unread)}; {known}"]
    return source


FORMATS = (Format("series", 7, scheme="devices", address=open_devices),)
