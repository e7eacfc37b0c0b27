"""Numbers to predict from a table beside the samples: a line per file, its name and its number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selftaught.data.csv_rows import csv_rows
from selftaught.data.naming import finder
from selftaught.data.source import TEST, TRAIN, VAL, Source
from selftaught.data.spec import near
from selftaught.errors import UserError

__all__ = ["with_targets"]

_NAMES = ("name", "file", "filename", "file_name", "path", "video", "clip", "id")
_SPLITS = {"train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}


def with_targets(source: Source, given: str) -> Source:
    """The samples with the numbers that a CSV file gives them (EchoNet-Dynamic's FileList.csv, for example).

    A line belongs to the file of its name: the path in the folder, or the file's own name, with or without its suffix
    (see :func:`selftaught.data.naming.finder`). All windows of a recording get its number; samples without a line get
    none. A column ``split`` (train, val, test) becomes the source's own split.

    Args:
        source: of files.
        given: the file, or FILE:COLUMN where it has several columns of numbers. The names stand in the column
            ``name``, ``file``, ``filename``, ``path``, ``video``, ``clip`` or ``id``, else in the first one.

    Raises:
        UserError: no such file or column, several columns to choose from, a value that is no number, no line that
            names a sample, a line whose name two files have, two numbers for one file.
    """
    path, column = _place(given)
    columns = _read(path)
    key = next((c for c in columns if c.lower() in _NAMES), next(iter(columns)))
    values = _numbers(path, columns, key, column)
    files = _files(source)
    called = finder(list(files), path)
    targets = np.full(len(source), np.nan)
    splits = next((texts for name, texts in columns.items() if name.lower() == "split"), None)
    codes = np.full(len(source), -1, dtype=np.int8)
    lines: dict[str, int] = {}
    for line, name in enumerate(columns[key]):
        file = called(name)
        if file is None:  # of another part, or of no file here
            continue
        before = lines.setdefault(file, line)
        if before != line and np.isnan(values[line]):
            continue
        if values[before] != values[line] and not np.isnan(values[before]):
            both = f"{values[before]:g} and {values[line]:g}"
            raise UserError(f"{path}: {file} has the numbers {both}; leave it one line")
        lines[file] = line
        for i in files[file]:
            targets[i] = values[line]
            codes[i] = _SPLITS.get(splits[line].lower(), -1) if splits else -1
    if np.isnan(targets).all():
        raise UserError(f"{path}: no line names a sample of {source.name}; they are called like {source.names[0]}")
    found = source.subset(np.arange(len(source)), f"targets of {path.name}")
    found.targets = targets
    if (codes >= 0).all():
        found.given = codes
    lost = int(np.isnan(targets).sum())
    if lost:
        found.notes = (*source.notes, f"{lost:,} of {len(source):,} samples have no number in {path.name}")
    return found


def _place(given: str) -> tuple[Path, str]:
    """The file and the column; either may hold colons."""
    whole = Path(given).expanduser()
    if whole.is_file():
        return whole, ""
    file, _, column = given.rpartition(":")
    path = Path(file or given).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: no such file; targets=FILE.csv or FILE.csv:COLUMN")
    return path, column


def _read(path: Path) -> dict[str, list[str]]:
    """Columns of text by their names."""
    rows = [row for row in csv_rows(path) if any((cell or "").strip() for cell in row.values())]
    if not rows or len(rows[0]) < 2:
        raise UserError(f"{path}: wants a line of names and two columns or more, file and number")
    return {name.strip(): [(row[name] or "").strip() for row in rows] for name in rows[0]}


def _numbers(path: Path, columns: dict[str, list[str]], key: str, asked: str) -> np.ndarray:
    """The column of numbers, NaN where a cell is empty."""
    others = [name for name in columns if name != key]
    if asked:
        found = next((name for name in others if name.lower() == asked.lower()), None)
        if found is None:
            raise UserError(f"{path} has no column {asked!r}{near(asked, others)}; it has {', '.join(others)}")
        try:
            return np.array([float(text or "nan") for text in columns[found]])
        except ValueError as error:
            raise UserError(f"{path}: {found} holds text, not numbers ({error})") from None
    able = {}
    for name in others:
        try:
            able[name] = np.array([float(text or "nan") for text in columns[name]])
        except ValueError:
            continue
    if len(able) != 1:
        several = f"several columns of numbers ({', '.join(able)}); say which" if able else "no column of numbers;"
        raise UserError(f"{path} has {several} targets={path}:COLUMN")
    return next(iter(able.values()))


def _files(source: Source) -> dict[str, list[int]]:
    """The name of each file -> its samples: one, or the windows of a recording."""
    files: dict[str, list[int]] = {}
    for i, name in enumerate(source.names):
        stem, at, start = name.rpartition("@")
        files.setdefault(stem if at and start.isdigit() else name, []).append(i)
    return files
