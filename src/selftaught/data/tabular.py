"""Recordings in text tables (.csv, .tsv, .txt): a folder of them, or one, whole or cut into windows."""

from __future__ import annotations

import functools
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught.data.clocks import UNITS
from selftaught.data.files import file_stamps, matching_files, walk
from selftaught.data.labelling import class_values
from selftaught.data.layout import layout
from selftaught.data.pixels import finite
from selftaught.data.recordings import Plan, Recording, Roles, Wanted, plan, roles_of, take
from selftaught.data.series import TABLE_SUFFIXES, window_places
from selftaught.data.source import Modality, Source, digest
from selftaught.errors import SampleError, UserError

if TYPE_CHECKING:
    from selftaught.data.tables import Table

_USUAL = 256
"""Instants in the window that is proposed for recordings of several lengths."""
_ROOM = 1 << 30
"""Bytes of recordings that a source keeps in memory; the rest is read again when asked for."""


class Tables(Source):
    """Recordings in text tables (rows are instants, columns channels), whole or in windows; see `open_tables`.

    Attributes:
        taken: (file, what its columns were taken for, or why it can't be used), one pair for each file.
    """

    modality: Modality = "series"

    def __init__(
        self,
        root: Path,
        files: list[str],
        name: str,
        window: int | None,
        step: int | None,
        wanted: Wanted,
        pad: bool = False,
    ) -> None:
        """Args: folder; files in it; name; instants in a window, None: whole; between starts; what is wanted of the
        columns; whether what is shorter is filled up with zeros.
        """
        meant = layout(_as_recordings(files))
        self.name, self.root, self._files, self._wanted = name, root, files, wanted
        self._kept: dict[int, np.ndarray] = {}
        found = self._take_all()
        self.taken = [(f, r if isinstance(r, str) else r.line) for f, r in zip(files, found, strict=True)]
        lengths = [stop - start for r in found if not isinstance(r, str) for _, start, stop in r.pieces]
        self.window = (
            window if window is not None else _one_length(lengths, name, str(root) if name.endswith("/") else name, pad)
        )
        self._place(found, self.window if step is None else step, pad, window is None)
        self.taken = [(f, self._faults.get(r, line)) for r, (f, line) in enumerate(self.taken)]
        if window is not None and lengths and max(lengths) < window and not pad:
            raise UserError(
                f"{name}: no recording is as long as the window of {window} samples; the longest has {max(lengths)}; "
                "take a smaller window, or pad=true"
            )
        rates = {float(f"{r.rate:.3g}") for r in found if not isinstance(r, str) and r.rate is not None}
        self.rate = wanted.rate or (rates.pop() if len(rates) == 1 else None)
        of = self.places[:, 0]
        self.classes = meant.classes
        self.labels = None if meant.labels is None else meant.labels[of]
        self.given = None if meant.given is None else meant.given[of]
        self.targets = class_values(self.labels, self.classes)
        self.groups = None if window is None else self.places[:, 0].copy()
        self.channels = None if self._plan is None else len(self._plan.channels)
        self.notes = [*meant.notes, *_noted(self.taken, found)]

    def _take_all(self) -> list[Recording | str]:
        """Every file's recording without its values, which lie in `_kept` as far as there is room; or why there is
        none.
        """
        surveys, room = [], _ROOM
        for file in self._files:
            survey = _survey(self.root / file, self._wanted, file)
            if not isinstance(survey, str):
                room -= 8 * survey[0].rows * len(survey[0].columns)
                survey = survey if room > 0 else _light(*survey)
            surveys.append(survey)
        good = [survey for survey in surveys if not isinstance(survey, str)]
        self._refuse_sensors(surveys)
        self._plan = plan(self.name, good, self._wanted) if good else None
        found: list[Recording | str] = []
        for r, survey in enumerate(surveys):
            recording = survey if isinstance(survey, str) else self._take(r, survey)
            if not isinstance(recording, str):
                if room > 0:
                    self._kept[r] = recording.values
                recording = recording._replace(values=np.empty((0, 0), np.float32))
            found.append(recording)
            surveys[r] = ""
        return found

    def _refuse_sensors(self, surveys: list[tuple[Table, Roles] | str]) -> None:
        """One file per sensor, each with a start and a rate of its own: they are no recordings of the same thing."""
        from selftaught.data.tables import START_AND_RATE

        own = {
            PurePosixPath(file).name
            for file, survey in zip(self._files, surveys, strict=True)
            if not isinstance(survey, str) and START_AND_RATE in survey[1].by_name
        }
        if len(own) > 1:
            first = min(own)
            raise UserError(
                f"{self.name}: {', '.join(sorted(own))} are sensors of one device, each with a rate of its own; choose "
                f"one, such as '{self.root}/**/{first}'"
            )

    def _take(self, r: int, survey: tuple[Table, Roles] | str) -> Recording | str:
        if not isinstance(survey, str) and any(c.kind == "number" and not len(c.values) for c in survey[0].columns):
            survey = _survey(self.root / self._files[r], self._wanted, self._files[r])
        if isinstance(survey, str) or self._plan is None:
            return str(survey)
        try:
            return take(*survey, self._plan, self._wanted, self._files[r])
        except SampleError as error:
            return error.reason

    def _place(self, found: list[Recording | str], step: int, pad: bool, whole: bool) -> None:
        """The windows: `places` (n, 2) of file and start, `names`, and what is wrong with which file."""
        window_places([], self.window, step)
        places: list[tuple[int, int]] = []
        names: list[str] = []
        self._faults: dict[int, str] = {}
        self._stops: dict[tuple[int, int], int] = {}
        for r, (file, recording) in enumerate(zip(self._files, found, strict=True)):
            before, pieces = len(places), [] if isinstance(recording, str) else recording.pieces
            for offset, start, stop in pieces:
                short = range(1) if pad and stop - start < self.window else range(0)
                for k in range(0, stop - start - self.window + 1, step) or short:
                    places.append((r, start + k))
                    names.append(file if whole and len(pieces) == 1 else f"{file}@{offset + k}")
                    self._stops[r, start + k] = min(start + k + self.window, stop)
            if len(places) == before:
                places.append((r, 0))
                names.append(file if whole else f"{file}@0")
                longest = max((stop - start for _, start, stop in pieces), default=0)
                self._faults[r] = (
                    recording
                    if isinstance(recording, str)
                    else f"{longest} instants, shorter than the window of {self.window} (pad=true fills up with zeros)"
                )
        self.places, self.names = np.array(places, dtype=np.int64).reshape(-1, 2), names

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One recording or window (C, T) float32; see `Source.read`."""
        r, start = self.places[i].tolist()
        if r in self._faults:
            raise SampleError(self.names[i], self._faults[r])
        values = self._kept[r] if r in self._kept else self._reload(r, self.names[i])
        window = np.zeros((values.shape[0], self.window), dtype=np.float32)
        piece = values[:, start : self._stops[r, start]]
        if piece.shape[1] < self._stops[r, start] - start:
            raise SampleError(self.names[i], "the file has changed since it was opened")
        window[:, : piece.shape[1]] = piece
        return finite(window, self.names[i])

    def _reload(self, r: int, name: str) -> np.ndarray:
        path = self.root / self._files[r]
        try:
            status = path.stat()
        except OSError:
            raise SampleError(name, "missing") from None
        assert self._plan is not None
        values = _values(str(path), self._wanted, self._plan, status.st_size, status.st_mtime_ns)
        if isinstance(values, str):
            raise SampleError(name, values)
        return values

    def fingerprint(self) -> str:
        """Of the files' names, sizes and times of change, and of how they are cut."""
        return digest(
            "tables",
            self._files,
            file_stamps(self.root, self._files),
            self.places,
            self.window,
            self._wanted,
            self._plan,
        )


def open_tables(
    path: Path,
    name: str,
    *,
    window: int | None = None,
    step: int | None = None,
    columns: Any = None,
    rate: float | None = None,
    time: str | None = None,
    unit: str | None = None,
    gap: int = 5,
    pad: bool = False,
) -> Tables:
    """A folder of recordings as text tables, one such file, or those that a glob pattern matches.

    Rows are instants and columns channels, parted by comma, semicolon, tab, bar or blanks; numbers may have decimal
    commas. Columns are matched by the names in the header, whatever their order. A column of time, of text, a running
    number, or one that names the class or the subject is no channel; `Tables.taken` (shown by ``selftaught data
    check``) says what each was taken for. One level of sub-folders is read as classes, ``train/`` beside ``test/`` as
    a given split. Windows of one recording form a group.

    Args:
        path: folder (.csv, .tsv and .txt below it), file or pattern.
        name: what to call the source.
        window: instants in a sample; None: whole recordings, which must then be equally long.
        step: instants between the starts of two windows; None: `window`, so that they don't overlap.
        columns: the channels, by name in the header or by number from 0, as a list or parted by commas; None: every
            column of numbers that is not time, a running number or the name of a class or subject.
        rate: in Hz; recordings whose clock runs otherwise are resampled to it. None: as most recordings have it.
        time: the column of the time, by name or number; "none": there is none; None: told by its content and name.
        unit: of a numeric time column: s, ms, us, ns, min or h; None: told by its name and size.
        gap: missing values are filled linearly over at most so many instants; longer gaps part a recording.
        pad: True: recordings shorter than the window are filled up with zeros at their end; False: they are listed as
            samples that can't be used.

    Raises:
        UserError: no table there, no such column, or no recording as long as the window.
    """
    root, files = _recordings(path, name)
    return Tables(root, files, name, window, step, _wanted(name, columns, time, unit, rate, gap), pad)


@functools.wraps(open_tables)
def open_table_pattern(pattern: str, **options: Any) -> Tables:
    """The recordings that a glob pattern matches ("**" for any depth); options as `open_tables`."""
    return open_tables(Path(pattern), pattern, **options)


def _recordings(path: Path, name: str) -> tuple[Path, list[str]]:
    """A folder, and the files in it that a file, a folder or a glob pattern stands for."""
    if path.is_file():
        return path.parent, [path.name]
    if not path.is_dir():
        return matching_files(str(path), TABLE_SUFFIXES, "recording")
    files = walk(path, TABLE_SUFFIXES)
    if not files:
        raise UserError(f"{name}: no recording in this folder or below; looked for {' '.join(TABLE_SUFFIXES)}")
    return path, files


def _wanted(name: str, columns: Any, time: str | None, unit: str | None, rate: float | None, gap: int) -> Wanted:
    """The options, checked."""
    if rate is not None and not 0 < rate < float("inf"):
        raise UserError(f"{name}: rate={rate} must be a positive number of Hz")
    if unit is not None and unit not in UNITS:
        raise UserError(f"{name}: unit={unit!r} is none of {', '.join(UNITS)}")
    if gap < 0:
        raise UserError(f"{name}: gap={gap} must be at least 0")
    listed = columns.split(",") if isinstance(columns, str) else columns
    chosen = None if listed is None else tuple(str(c).strip() for c in listed)
    return Wanted(chosen, None if time is None else str(time), unit, rate, gap)


def _as_recordings(files: list[str]) -> list[str]:
    """Names to find classes by: where every file is called alike (rest/anna/ACC.csv), its folder is the recording."""
    paths = [PurePosixPath(file) for file in files]
    if len(files) > 1 and len({path.name for path in paths}) == 1 and all(len(path.parts) > 2 for path in paths):
        return [f"{path.parent}{path.suffix}" for path in paths]
    return files


class UnequalLengths(UserError):
    """Recordings of several lengths, and nothing said of how to make them alike."""


def _one_length(lengths: list[int], name: str, where: str, pad: bool) -> int:
    shortest, longest = min(lengths, default=1), max(lengths, default=1)
    if shortest < longest and not pad:
        window = 1 << (min(shortest, _USUAL).bit_length() - 1)
        raise UnequalLengths(
            f"{name}: recordings of {shortest} to {longest} instants; cut them into windows, as "
            f"'{where}?window={window}' does, or fill the shorter ones up with zeros: '{where}?pad=true'"
        )
    return longest


def _survey(path: Path, wanted: Wanted, name: str) -> tuple[Table, Roles] | str:
    """The table in a file and what its columns are, or why there is none."""
    from selftaught.data.tables import read_table

    try:
        table = read_table(path, name)
        return table, roles_of(table, wanted, name)
    except SampleError as error:
        return error.reason


def _light(table: Table, roles: Roles) -> tuple[Table, Roles]:
    """The same without values, for what is chosen over all files."""
    if roles.clock is not None:
        roles.clock = roles.clock._replace(at=np.empty(0))
    roles.time = None
    return table._replace(columns=[c._replace(values=np.empty(0)) for c in table.columns]), roles


@functools.lru_cache(maxsize=16)
def _values(path: str, wanted: Wanted, plan: Plan, size: int, changed: int) -> np.ndarray | str:
    """(C, T) float32, or the reason why there is none; kept for the next windows of the same recording."""
    survey = _survey(Path(path), wanted, path)
    if isinstance(survey, str):
        return survey
    try:
        return take(*survey, plan, wanted, path).values
    except SampleError as error:
        return error.reason


def _noted(taken: list[tuple[str, str]], found: list[Recording | str]) -> list[str]:
    """What the recordings were taken for, in a line or two for all files."""
    good = [pair for pair, r in zip(taken, found, strict=True) if not isinstance(r, str)]
    notes = [f"{good[0][0]}: {good[0][1]}"] if good else []
    others = sum(line != good[0][1] for _, line in good)
    if others:
        notes.append(f"{others} of {len(taken)} files were taken otherwise; selftaught data check shows each")
    bad = [pair for pair, r in zip(taken, found, strict=True) if isinstance(r, str)]
    if bad:
        notes.append(f"{len(bad)} of {len(taken)} files can't be used, the first: {bad[0][0]}: {bad[0][1]}")
    return notes
