"""Results of one row per sample: a table written in parts, so that a call that was cut off goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from selftaught._paths import ON_DISK
from selftaught._words import typed
from selftaught.data import Source
from selftaught.data.mapped import DAMAGED
from selftaught.engine.embedding import none_usable
from selftaught.errors import UserError
from selftaught.run import applying
from selftaught.run.applying import Applied, Job, Skipped
from selftaught.run.features import through
from selftaught.run.sharing import Crew, crew

BATCH = 256
PART = 16 * BATCH
"""Samples per part."""

Columns = dict[str, np.ndarray]
Function = Callable[[dict[str, Any]], dict[str, Any]]
"""Of a batch: names of columns to tensors (n, ...) or lists of n texts."""


def write(job: Job, function: Function, *, main: str) -> Applied:
    """Write the columns that ``function`` gives for every batch to ``job.out`` (.parquet, .csv or .npy), in order.

    Finished parts lie in ``OUT.parts`` until all are there; ``OUT.work.json`` says whose they are. Samples that can't
    be used have no row in Parquet, a row of NaN in .npy (whose names stand in ``OUT.names.csv``); they are listed in
    ``OUT.skipped.csv``.

    Args:
        job: method, source and place.
        function: see `Function`; called without gradient on the method's device.
        main: the column that .npy holds.

    A .csv has the columns of Parquet, and one for each number of a vector (``embedding_0`` ...).

    Raises:
        UserError: another suffix; another run's results; another process at work there; NaN; no usable sample.
    """
    out = job.out
    if out.suffix not in _SINKS:
        raise UserError(f"--out {typed(out)}: a table goes to a .parquet, .csv or .npy file")
    applying.refuse_input(job)
    parts = out.with_name(out.name + ".parts")
    mark = out.with_name(out.name + ".work.json")
    team = crew(out, job.key)
    with applying.writing(out):
        if not team.first:
            with team.following():
                return _help(job, parts, function, team)
        with team.leading(), applying.held(out.with_name(out.name + ".lock"), job.called, job.another):
            known = applying.begin(job, mark, taken=out.exists() or parts.exists(), clear=lambda: _clear(parts))
            if (done := applying.finished(known, out)) is not None:
                job.say(len(job.source))
                _clear(parts)
                team.open()
                team.gather()
                return done
            parts.mkdir(parents=True, exist_ok=True)
            team.open()
            _make_parts(job, parts, function, team)
            team.gather()
            written, skipped = _join(job, parts, _SINKS[out.suffix](out, main, job.source))
            applying.list_skipped(out, skipped)
            applying.finish(mark, written, skipped, out)
            _clear(parts)
    return Applied(written, out, skipped)


def _help(job: Job, parts: Path, function: Function, team: Crew) -> Applied:
    """What another process than the first does; where the table was whole before, ``parts`` is not there."""
    made = _make_parts(job, parts, function, team) if parts.exists() else 0
    team.report()
    return Applied(made, job.out)


def _clear(parts: Path) -> None:
    if parts.exists():
        shutil.rmtree(parts)


# ---- parts -------------------------------------------------------------------------------------------------------
def _make_parts(job: Job, parts: Path, function: Function, team: Crew) -> int:
    """Make every part of this process's share that is missing or damaged; how many samples are done then."""
    n, size, own = len(job.source), min(BATCH, job.method.evaluation_rows), team.block(_count(len(job.source)))
    there = [k not in own or _load(_file(parts, k), *_range(k, n)) is not None for k in range(_count(n))]
    done = sum(_range(k, n)[1] - _range(k, n)[0] for k in own if there[k])
    say = team.alive(job.say)
    say(done)
    for first, last in _stretches(there):
        rows: list[tuple[Columns, np.ndarray]] = []
        skipped: list[tuple[int, str]] = []
        number, seen = first, 0
        options: dict[str, Any] = {"batch_size": size, "workers": job.workers}
        options |= {"start": first * PART, "stop": min(last * PART, n)}
        for found, index, bad in through(job.method, job.source, function, **options):
            if found is not None:
                rows.append((_checked(job, found, index), index))
            skipped += bad
            seen, done = seen + len(index) + len(bad), done + len(index) + len(bad)
            if seen == PART or number * PART + seen >= n:
                _write(_file(parts, number), rows, skipped)
                number, seen, rows, skipped = number + 1, 0, [], []
            say(done)
    return done


def _count(n: int) -> int:
    return -(-n // PART)


def _range(number: int, n: int) -> tuple[int, int]:
    return number * PART, min((number + 1) * PART, n)


def _file(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.npz"


def _stretches(there: list[bool]) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of each stretch of missing parts."""
    begun: int | None = None
    for number, present in enumerate([*there, True]):
        if not present and begun is None:
            begun = number
        if present and begun is not None:
            yield begun, number
            begun = None


def _checked(job: Job, found: dict[str, Any], index: np.ndarray) -> Columns:
    """The columns of a batch as arrays of one length, finite."""
    columns: Columns = {}
    for name, values in found.items():
        array = values.cpu().float().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if len(array) != len(index):
            raise ValueError(f"{job.method.slug}: {len(array)} rows of {name} for {len(index)} samples")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = job.source.names[int(index[~np.isfinite(array.reshape(len(array), -1)).all(1)][0])]
            raise UserError(f"{job.run}: NaN or infinity for {bad}; the model diverged, or its input is out of range")
        columns[name] = array
    return columns


def _write(path: Path, rows: list[tuple[Columns, np.ndarray]], skipped: list[tuple[int, str]]) -> None:
    names = list(rows[0][0]) if rows else []
    arrays = {f"column {name}": np.concatenate([columns[name] for columns, _ in rows]) for name in names}
    arrays["index"] = np.concatenate([index for _, index in rows]) if rows else np.zeros(0, np.int64)
    arrays["skipped"] = np.array(json.dumps([[int(i), reason] for i, reason in skipped]))
    with path.with_suffix(".part").open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    path.with_suffix(".part").replace(path)


def _load(path: Path, first: int, last: int) -> tuple[Columns, np.ndarray, list[tuple[int, str]]] | None:
    """A part whose samples are just ``first`` to ``last``; None where it is missing or damaged."""
    try:
        with np.load(path) as part:
            index, skipped = part["index"], json.loads(str(part["skipped"]))
            columns = {name.removeprefix("column "): part[name] for name in part.files if name.startswith("column ")}
    except DAMAGED:
        return None
    covered = sorted([*index.tolist(), *(i for i, _ in skipped)])
    if covered != list(range(first, last)) or any(len(column) != len(index) for column in columns.values()):
        return None
    return columns, index, [(int(i), str(reason)) for i, reason in skipped]


def _join(job: Job, parts: Path, sink: _Sink) -> tuple[int, Skipped]:
    n, written = len(job.source), 0
    skipped: Skipped = []
    for number in range(_count(n)):
        part = _load(_file(parts, number), *_range(number, n))
        if part is None:
            raise UserError(
                f"{_file(parts, number)}: gone or damaged while it was needed; the same command makes it anew"
            )
        columns, index, bad = part
        skipped += [(job.source.names[i], reason) for i, reason in bad]
        if len(index):
            sink.add(columns, index, [job.source.names[i] for i in index])
            written += len(index)
    if not written:
        _clear(parts)
        raise none_usable(job.source, skipped, n)
    sink.close()
    return written, skipped


# ---- files -------------------------------------------------------------------------------------------------------
class _Sink:
    """A table that grows by rows and is in place when it is whole."""

    def __init__(self, out: Path, main: str, source: Source) -> None:
        self.out, self.part, self.main, self.source = out, out.with_name(out.name + ".part"), main, source

    def add(self, columns: Columns, index: np.ndarray, names: list[str]) -> None:
        """Add rows."""
        raise TypeError(f"{type(self).__name__} adds no rows")

    def close(self) -> None:
        """Put the file in its place."""
        self.part.replace(self.out)


class _Parquet(_Sink):
    """Columns ``name``, ``index`` and those of the output; vectors as lists of float32 of fixed length."""

    writer: Any = None

    def add(self, columns: Columns, index: np.ndarray, names: list[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({"name": pa.array([_utf8(n) for n in names]), "index": pa.array(index)} | _arrow(columns))
        self.writer = self.writer or pq.ParquetWriter(self.part, table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        self.writer.close()
        super().close()


def _arrow(columns: Columns) -> dict[str, Any]:
    import pyarrow as pa

    found = {}
    for name, values in columns.items():
        if values.ndim == 1:
            found[name] = pa.array(values.tolist() if values.dtype.kind == "U" else values)
            continue
        flat = values.reshape(len(values), -1).astype(np.float32)
        found[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    return found


def _utf8(name: str) -> str:
    r"""A name as Parquet can hold it: bytes that are not UTF-8 as \xff."""
    return name.encode("utf-8", ON_DISK).decode("utf-8", "backslashreplace")


class _Npy(_Sink):
    """float32 (n, ...), a row for every sample of the source; rows of samples that can't be used are NaN."""

    array: Any = None

    def add(self, columns: Columns, index: np.ndarray, names: list[str]) -> None:
        values = columns[self.main]
        if self.array is None:
            shape = (len(self.source), *values.shape[1:])
            self.array = np.lib.format.open_memmap(self.part, mode="w+", dtype=np.float32, shape=shape)
            _reserve(self.part)
            self.array[:] = np.nan
        self.array[index] = values

    def close(self) -> None:
        self.array.flush()
        self.array = None
        applying.write_csv(
            self.out.with_name(self.out.name + ".names.csv"), ("name",), [(n,) for n in self.source.names]
        )
        super().close()


def _reserve(path: Path) -> None:
    """Take the disk space of a file that is mapped into memory: a full disk would kill the process when it is used.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


class _Csv(_Sink):
    """The columns of Parquet as text, each number of a vector in a column of its own."""

    rows: list[tuple[Any, ...]] | None = None
    heads: tuple[str, ...] = ()

    def add(self, columns: Columns, index: np.ndarray, names: list[str]) -> None:
        flat: Columns = {}
        for name, values in columns.items():
            if values.ndim == 1:
                flat[name] = values
            else:
                numbers = values.reshape(len(values), -1)
                flat |= {f"{name}_{k}": numbers[:, k] for k in range(numbers.shape[1])}
        self.rows, self.heads = self.rows or [], ("name", "index", *flat)
        lists = [values.tolist() for values in flat.values()]
        self.rows += list(zip(names, index.tolist(), *lists, strict=True))

    def close(self) -> None:
        applying.write_csv(self.part, self.heads, self.rows or [])
        super().close()


_SINKS: dict[str, type[_Sink]] = {".parquet": _Parquet, ".csv": _Csv, ".npy": _Npy}
