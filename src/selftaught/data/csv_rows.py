"""Rows of a table whose first line names the columns (.csv, .tsv); its cells are texts and may hold any mark."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from selftaught._reading import regular
from selftaught.errors import UserError

__all__ = ["csv_rows", "delimiter_of"]

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_END = "\x1f"


def csv_rows(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of a table whose first line names the columns, or the first ``limit``, as column -> cell.

    Columns are parted by commas, or by semicolons or tabs where these give the first line more columns; those of
    a .tsv by tabs. A cell that a short row lacks is None.

    Raises:
        UserError: it can't be read, isn't UTF-8, two columns are called alike, a row has more cells than there are
            columns, or a double quote is never closed or closed in a later row (all but the first two are looked for
            where all rows are read).
    """
    try:
        with regular(path).open(newline="", encoding="utf-8-sig") as file:
            first, before = file.readline(), 0
            while (first and not first.strip("\r\n")) or first.lower().startswith("sep="):
                first, before = file.readline(), before + 1
            delimiter = "\t" if path.suffix.lower() == ".tsv" else delimiter_of(first)
            return _rows(path, chain([first], file, [_END]), delimiter, limit, before)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: can't be read as a table ({error}); save it as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: can't be read as a table ({error})") from None


def delimiter_of(header: str) -> str:
    """What parts the columns that a line names: a comma, or a semicolon or tab where that gives more of them."""
    return max(_DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _rows(path: Path, lines: Iterable[str], delimiter: str, limit: int | None, before: int) -> list[dict[str, Any]]:
    seen: list[str] = []
    reader = csv.reader(_kept(lines, seen), delimiter=delimiter)
    columns = next(reader)
    if limit is None:
        _check_columns(path, columns)
    rows: list[dict[str, Any]] = []
    number = reader.line_num + 1
    seen.clear()
    for cells in reader:
        if len(rows) == limit or cells == [_END]:
            return rows
        if limit is None and any(cell.strip() for cell in cells[len(columns) :]) and not cells[-1].endswith(_END):
            raise UserError(
                f"{path}: line {before + number} has more cells than the {len(columns)} columns; put texts with "
                f'{_DELIMITERS[delimiter]} in them into double quotes, as in a{delimiter}"b{delimiter} c"'
            )
        if limit is None and len(seen) > 1 and not seen[-1].endswith(_END) and not _well_quoted(seen, delimiter):
            raise UserError(
                f"{path}: the double quote that opens in line {before + number} is closed within line "
                f"{before + reader.line_num}, as if the rows between were one text; double those that are part of a "
                'text, as in "5"" nail"'
            )
        seen.clear()
        if cells:
            short = [None] * (len(columns) - len(cells))
            rows.append(dict(zip(columns, [*cells, *short], strict=False)))
            last = number
        number = reader.line_num + 1
    if limit is None and columns != [_END] and not columns[-1].endswith(_END):
        raise UserError(
            f"{path}: the double quote that opens in line {before + last} is never closed, so the rest of the file "
            "is one text; close it, or double it where it is part of a text"
        )
    return rows


def _kept(lines: Iterable[str], seen: list[str]) -> Iterator[str]:
    """The lines; each is kept besides, until whoever reads them clears what was kept."""
    for line in lines:
        seen.append(line)
        yield line


def _well_quoted(lines: list[str], delimiter: str) -> bool:
    """Whether in a row of several lines quotes open and close whole cells alone."""
    try:
        return len(list(csv.reader(lines, delimiter=delimiter, strict=True))) == 1
    except csv.Error:
        return False


def _check_columns(path: Path, columns: list[str]) -> None:
    twice = next((name for k, name in enumerate(columns) if name.strip() and name in columns[:k]), None)
    if twice is not None:
        raise UserError(f"{path}: two columns are called {twice}; give one of them another name")
