"""Text tables as people have them, to named columns of numbers: separators, decimal commas, headers, time stamps."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from selftaught._reading import regular
from selftaught.data.clocks import like_time, seconds_of_text
from selftaught.errors import SampleError

MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "?", "-", "--", "missing")
"""Cells (any case) that hold no value."""

_NUMBER = re.compile(r"[+-]?(\d+([.]\d*)?|[.]\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_GROUPED = {
    ".": re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+([.]\d+)?"),
    ",": re.compile(r"[+-]?[1-9]\d{0,2}([.]\d{3})+(,\d+)?"),
}
"""Numbers with thousands apart, by their decimal mark; blanks and apostrophes (1 234,5 and 1'234.5) go before."""
_APART = re.compile(r"(?<=\d)[ '\u00a0\u202f\u2019](?=\d{3}(?!\d))")
_COMMA_NUMBER = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_WHOLE_COMMA = re.compile(r"[+-]?\d+,\d+")
_MOST_COLUMNS = 20_000
_LOOKED_AT = 200

START_AND_RATE = "start and rate"
"""Name of the time of files whose first two rows are the start and the rate."""


class Column(NamedTuple):
    """One column: what its header calls it, and its values.

    ``kind`` is "number" (values float64 with NaN where there is none), "stamp" (text stamps, values in seconds),
    "text" or "empty" (no values).
    """

    name: str
    kind: str
    values: np.ndarray = np.empty(0)


class Table(NamedTuple):
    """What stands in one file: its columns, whether it has a header, and what was noticed on the way."""

    columns: list[Column]
    header: bool
    rows: int
    notes: list[str]


def read_table(path: Path, name: str) -> Table:
    """Read a text table: rows are instants.

    Columns are parted by tabs, semicolons, commas, bars or blanks; numbers have points or commas. Lines before the
    header, a line of units below it, comment lines (``#``) and blank lines are passed over; an empty cell, ``NA``,
    ``NaN``, ``null``, ``-`` and ``?`` are missing values. Without a header the columns are called 0, 1, ...
    Thousands may be apart (1,234.5 as 1.234,5). Where the first two rows hold a Unix time and a rate in Hz, as Empatica
    E4 writes them, they become a column of time.

    Args:
        path: the file.
        name: of the sample, for the errors.

    Raises:
        SampleError: it is missing, empty, not text, its rows have unequal columns, or a column of numbers holds words.
    """
    lines, comment = _lines(path, name)
    delimiter, decimal, lines = _dialect(lines)
    cells = [_split(line, delimiter) for line in lines[:_LOOKED_AT]]
    top, names = _header(cells, decimal, comment, delimiter)
    body = lines[top:]
    if not body:
        raise SampleError(name, "no rows")
    width = len(_split(body[0], delimiter))
    if width > _MOST_COLUMNS:
        raise SampleError(name, f"{width:,} columns; at most {_MOST_COLUMNS:,} are read: put samples in rows")
    start = _start_and_rate(cells[top : top + 2]) if names is None else None
    body = body[2:] if start is not None and len(body) > 2 else body
    called = _names(names, width, cells[top:], name)
    texts, notes = _parse(body, delimiter, width, name)
    columns = [_column(called[c], text, decimal, name) for c, text in enumerate(texts)]
    if columns[-1].kind == "empty" and columns[-1].name in ("", str(width - 1)) and width > 1:
        columns.pop()  # a separator at the end of every line
    if start is not None:
        at = start[0] + np.arange(len(texts[0])) / start[1]
        columns.append(Column(START_AND_RATE, "stamp", at))
        notes.append(f"the first two rows are a start and a rate of {start[1]:g} Hz")
    elif delimiter == "," and _ambiguous(columns, names, body):
        notes.append("taken as two columns of whole numbers; if it is one with decimal commas, write points")
    return Table(columns, names is not None, len(texts[0]), notes)


def _lines(path: Path, name: str) -> tuple[list[str], str | None]:
    """The lines that count, and the last comment line before the first of them (``# x y z`` may be a header)."""
    try:
        data = regular(path).read_bytes()
    except FileNotFoundError:
        raise SampleError(name, "missing") from None
    except OSError as error:
        raise SampleError(name, f"can't be opened: {error.strerror}") from None
    if not data.strip():
        raise SampleError(name, "empty file")
    lines: list[str] = []
    comment = None
    for line in _text(data, name).splitlines():
        bare = line.strip()
        if bare[:1] in ("#", "%") and (
            bare[1:2].isspace() or (not lines and bare[1:2].isalpha() and bare[:4] != "#N/A")
        ):
            comment = bare.lstrip("#%").strip() if not lines else comment
        elif line.strip(" \r"):
            lines.append(line)
    if not lines:
        raise SampleError(name, "no rows")
    return lines, comment


def _text(data: bytes, name: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise SampleError(name, "not a text file") from None
    if b"\0" in data:
        raise SampleError(name, "not a text file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _dialect(lines: list[str]) -> tuple[str | None, str, list[str]]:
    """(what parts the columns, None: blanks; what parts a number's fraction; the lines without Excel's ``sep=``)."""
    if lines[0].lower().startswith("sep=") and len(lines) > 1:
        return (*_decimal(lines[1:], lines[0][4:5] or ","), lines[1:])
    if all(line.rstrip().endswith(";") and ";" not in line.rstrip()[:-1] and "," in line for line in lines):
        lines = [line.rstrip()[:-1] for line in lines]  # WISDM ends its lines so
    tail = lines[len(lines) // 2 :][:_LOOKED_AT]
    for delimiter in ("\t", ";", "|"):
        if all(delimiter in line for line in tail):
            return (*_decimal(lines, delimiter), lines)
    if any("," in line for line in tail):
        if _blank_parted(tail):
            return None, ",", lines
        if _one_decimal_comma(lines):
            return ";", ",", lines
        return (*_decimal(lines, ","), lines)
    return None, ".", lines


def _blank_parted(tail: list[str]) -> bool:
    """Whether blanks part the columns and commas are inside the numbers: ``1,5 2,5``."""
    words = [line.split() for line in tail]
    return min(map(len, words)) > 1 and all(
        _COMMA_NUMBER.fullmatch(word) or _NUMBER.fullmatch(word) for row in words for word in row
    )


def _one_decimal_comma(lines: list[str]) -> bool:
    """Whether each line is one number with a decimal comma, and not two whole numbers.

    It is, if the header names one column, some lines have no comma, or the digits behind it begin with a nought
    (``0,05``; no whole number is written so) or follow a minus nought (``-0,5``).
    """
    body = [line.strip().strip('"') for line in lines[:2000]]
    headed = not _WHOLE_COMMA.fullmatch(body[0]) and not _NUMBER.fullmatch(body[0])
    body = body[1:] if headed else body
    commas = [line for line in body if _WHOLE_COMMA.fullmatch(line)]
    plain = [line for line in body if _NUMBER.fullmatch(line) or line.lower() in MISSING]
    if not commas or len(commas) + len(plain) < len(body):
        return False
    if headed:
        return "," not in lines[0]
    digits = [line.split(",") for line in commas]
    return bool(plain) or any((len(b) > 1 and b[0] == "0") or a in ("-0", "+0") for a, b in digits)


def _ambiguous(columns: list[Column], names: list[str] | None, body: list[str]) -> bool:
    """Whether two headerless columns might be one: every line is ``digits,digits`` with as many behind the comma."""
    if names is not None or len(columns) != 2 or len(body) < 20:
        return False
    behind = {len(line.strip().partition(",")[2]) for line in body}
    return len(behind) == 1 and all(_WHOLE_COMMA.fullmatch(line.strip()) for line in body)


def _decimal(lines: list[str], delimiter: str) -> tuple[str, str]:
    """(the delimiter, what parts a number's fraction): a comma where some number can have it as nothing else.

    1,234 and 1.234 may be thousands; between commas, beside whole numbers without any, they are.
    """
    words = [word for line in lines[:_LOOKED_AT] for word in _split(line, delimiter)]
    commas = [word for word in words if _COMMA_NUMBER.fullmatch(word)]
    points = [word for word in words if "." in word and _NUMBER.fullmatch(word)]
    certain = any(not _GROUPED["."].fullmatch(word) for word in commas)
    if points:
        return delimiter, "," if certain and all(_GROUPED[","].fullmatch(word) for word in points) else "."
    if any("." in word and _GROUPED[","].fullmatch(word) for word in words):  # 1.234.567 or 1.234,5
        return delimiter, ","
    if any("," in word and "." in word and _GROUPED["."].fullmatch(word) for word in words):
        return delimiter, "."
    whole = delimiter == "," and any(word.isdigit() for word in words)
    return delimiter, "," if commas and (certain or not whole) else "."


def _split(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    if '"' not in line:
        return [word.strip() for word in line.split(delimiter)]
    import csv as quoted

    return [word.strip() for word in next(quoted.reader([line], delimiter=delimiter, skipinitialspace=True))]


def _is_number(word: str, decimal: str) -> bool:
    return _NUMBER.fullmatch(word.replace(",", ".", 1) if decimal == "," else word) is not None


def _header(
    cells: list[list[str]], decimal: str, comment: str | None, delimiter: str | None
) -> tuple[int, list[str] | None]:
    """(first line of the body, names of the columns or None): the header is the last line of words before numbers."""
    width = max(set(map(len, cells)), key=[len(row) for row in cells].count)
    numeric = [len(row) == width and any(_is_number(w, decimal) for w in row) for row in cells]
    if not any(numeric):  # nothing but words: the first line names them
        return 1, cells[0]
    top = numeric.index(True)
    while top and len(cells[top - 1]) == width and all(w.lower() in ("", "nan", "na", "null") for w in cells[top - 1]):
        top -= 1  # a row without any value is a row
    if _named_by_numbers(cells[top:], decimal):
        return top + 1, cells[top]
    above = [row for row in cells[:top] if abs(len(row) - width) <= 1 and len(row) >= 1]
    if top and above:
        if len(above) > 1 and _units(above[-1]):
            return top, _timed(above[-2], above[-1])
        return top, above[-1]
    if comment is not None and len(_split(comment, delimiter)) == width:
        words = _split(comment, delimiter)
        return top, words if not any(_is_number(word, decimal) for word in words) else None
    return top, None


def _named_by_numbers(cells: list[list[str]], decimal: str) -> bool:
    """Whether the first row is a header although some of its cells are numbers (``time,0,1``): a column begins with a
    word and goes on with numbers or stamps.
    """
    first, rest = cells[0], [row for row in cells[1:] if len(row) == len(cells[0])]
    if len(rest) < 2:
        return False
    for c, word in enumerate(first):
        if word.lower() in MISSING or _is_number(word, decimal) or seconds_of_text(pa.array([word])) is not None:
            continue
        below = [row[c] for row in rest if row[c].lower() not in MISSING]
        known = sum(_is_number(w, decimal) for w in below)
        if below and known > len(below) / 2:
            return True
        if below and not known and seconds_of_text(pa.array(below)) is not None:
            return True
    return False


def _start_and_rate(cells: list[list[str]]) -> tuple[float, float] | None:
    """(Unix time in s, rate in Hz) where the first two rows are these, the same in every column (Empatica E4)."""
    if len(cells) < 2 or any(len(set(row)) != 1 or not _NUMBER.fullmatch(row[0]) for row in cells):
        return None
    start, rate = (float(row[0]) for row in cells)
    return (start, rate) if 1e9 <= start < 4e9 and 0 < rate < 1e5 else None


def _timed(names: list[str], units: list[str]) -> list[str]:
    """The names, that of a time with its unit behind it, which tells the rate."""
    if len(names) != len(units):
        return names
    bare = [unit.strip("()[] ") for unit in units]
    return [
        f"{n} ({u})" if u and like_time(n) and n == n.split("(")[0] else n for n, u in zip(names, bare, strict=True)
    ]


def _units(row: list[str]) -> bool:
    """Whether a line of words holds units (``(s)``, ``m/s^2``, ``[g]``, ``-``) rather than names."""
    return all(
        not w
        or w[0] in "([-°"
        or "/" in w
        or w.lower()
        in ("s", "ms", "us", "ns", "g", "v", "mv", "hz", "deg", "rad", "c", "k", "%", "m", "mm", "ut", "bpm")
        for w in row
    )


def _names(names: list[str] | None, width: int, cells: list[list[str]], name: str) -> list[str]:
    """A name for each of `width` columns; one that occurs twice gets a number behind it."""
    if names is None:
        return [str(c) for c in range(width)]
    if len(names) == width - 1:  # row names without a header, or a separator at the end of every row
        last = all(not row[-1] for row in cells if len(row) == width)
        names = [*names, ""] if last else ["", *names]
    if len(names) == width + 1 and not names[-1]:
        names = names[:-1]
    if len(names) != width:
        raise SampleError(name, f"its header names {len(names)} columns, its rows have {width}")
    seen: dict[str, int] = {}
    called = []
    for word in (w.strip().strip('"').strip() for w in names):
        seen[word] = seen.get(word, 0) + 1
        called.append(word if seen[word] == 1 else f"{word}.{seen[word] - 1}")
    return called


def _parse(body: list[str], delimiter: str | None, width: int, name: str) -> tuple[list[Any], list[str]]:
    """The cells of every column as text, and notes; a last line that was cut short while it was written is left out."""
    odd: list[Any] = []

    def note(row: Any) -> str:
        odd.append(row)
        return "skip"

    text = "\n".join("\t".join(line.split()) for line in body) if delimiter is None else "\n".join(body)
    types = {str(c): pa.string() for c in range(width)}
    data = text.encode()
    options = {
        "read_options": csv.ReadOptions(
            column_names=list(types), use_threads=False, block_size=min(max(len(data) + 1, 1 << 20), (1 << 31) - 1)
        ),
        "parse_options": csv.ParseOptions(delimiter=delimiter or "\t", invalid_row_handler=note),
        "convert_options": csv.ConvertOptions(column_types=types, strings_can_be_null=False),
    }
    try:
        table = csv.read_csv(io.BytesIO(data), **options)
    except pa.ArrowInvalid as error:
        raise SampleError(name, f"not a table ({' '.join(str(error).split())[:60]})") from None
    notes = []
    if odd:
        number = odd[0].number or table.num_rows + 1
        if not (len(odd) == 1 and number == len(body) > 1 and odd[0].actual_columns < width):
            raise SampleError(name, f"row {number} has {odd[0].actual_columns} columns, the first {width}")
        notes.append("the last row was cut short and is left out")
    return [table.column(c).combine_chunks() for c in types], notes


def _column(called: str, text: Any, decimal: str, name: str) -> Column:
    trimmed = pc.utf8_trim_whitespace(text)
    missing = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(MISSING))
    present = pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)
    there = len(present) - present.null_count
    if not there:
        return Column(called, "empty")
    plain = pc.replace_substring(present, ",", ".", max_replacements=1) if decimal == "," else present
    plain = pc.utf8_ltrim(plain, "+")
    thousands = decimal == "," and pc.any(pc.match_substring(present, ".")).as_py()
    try:
        if thousands and (grouped := _ungrouped(present, decimal)) is not None:
            return Column(called, "number", grouped)
        return Column(called, "number", _floats(pc.cast(plain, pa.float64())))
    except pa.ArrowInvalid:
        pass
    grouped = _ungrouped(present, decimal)
    if grouped is not None:
        return Column(called, "number", grouped)
    stamps = seconds_of_text(present)
    if stamps is not None:
        return Column(called, "stamp", stamps)
    good = pc.match_substring_regex(plain, f"(?i)^({_NUMBER.pattern})$")
    if 2 * (pc.sum(good).as_py() or 0) < there:
        return Column(called, "text")
    row = pc.index(good, value=pa.scalar(False)).as_py()
    if row < 0:  # the pattern is stricter than the parser; nothing is left to blame but the cell that it refused
        raise SampleError(name, f"column {called!r} holds what is not a number")
    raise SampleError(name, f"row {row + 1}, column {called!r}: not a number: {str(present[row])[:40]!r}")


def _ungrouped(present: Any, decimal: str) -> np.ndarray | None:
    """Numbers some of which have their thousands apart (1,234.5; 1.234,5; 1 234,5), or None where there are others."""
    words = [None if word is None else _APART.sub("", word) for word in present.to_pylist()]
    marks = (decimal, *(mark for mark in ".," if mark != decimal))
    for mark in marks:
        other = "," if mark == "." else "."
        plain = _NUMBER if mark == "." else re.compile(_NUMBER.pattern.replace("[.]", ","), re.IGNORECASE)
        if not all(word is None or plain.fullmatch(word) or _GROUPED[mark].fullmatch(word) for word in words):
            continue
        texts = [None if word is None else word.replace(other, "").replace(",", ".") for word in words]
        return np.array([float("nan") if text is None else float(text) for text in texts], dtype=np.float64)
    return None


def _floats(values: Any) -> np.ndarray:
    return np.array(pc.fill_null(values, float("nan")).to_numpy(zero_copy_only=False), dtype=np.float64)
