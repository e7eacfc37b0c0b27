"""Results as tables: means over seeds with their intervals, mean ranks; as Markdown, CSV and LaTeX.

A record is what one cell measured once: a plain dict with ``name`` (of the method), ``data`` (trained on), ``judged``
(on), ``encoder``, ``start``, ``fraction``, ``seed``, ``protocol``, ``headline`` and ``numbers``.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from selftaught.benchmark.ranking import Better, Comparison, compare
from selftaught.benchmark.ranking import rank as rank_rows
from selftaught.errors import UserError
from selftaught.evaluation import Number
from selftaught.evaluation.result import ANY, Extent, extent

Record = Mapping[str, Any]
MEAN, RANK = "mean", "mean rank"


@dataclass(frozen=True)
class Table:
    """Numbers by row and column.

    Args:
        title: what is measured.
        rows: names of the rows, in order.
        columns: names of the columns, in order.
        cells: (row, column) -> number; a pair may be missing.
        better: whether high or low numbers are good.
        corner: heading of the first column.
        note: what a reader must know.
        summary: names of columns that sum up the others and are never ranked.
        within: what the numbers can be; intervals end there.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[str, str], Number]
    better: Better = "high"
    corner: str = ""
    note: str = ""
    summary: tuple[str, ...] = field(default=())
    within: Extent = ANY

    def number(self, row: str, column: str) -> Number | None:
        """The number of a cell, None where there is none."""
        found = self.cells.get((row, column))
        return found if found is not None and math.isfinite(found.mean) else None

    def means(self, columns: Sequence[str] | None = None) -> np.ndarray:
        """``(rows, columns)`` means, NaN where a cell is empty."""
        wanted = self.columns if columns is None else columns
        found = [[self.number(row, column) for column in wanted] for row in self.rows]
        return np.array([[math.nan if n is None else n.mean for n in line] for line in found]).reshape(-1, len(wanted))

    def best(self, column: str) -> set[str]:
        """The rows with the best mean of a column; of mean ranks the lowest is best."""
        low = self.better == "low" or column == RANK
        known = {row: n.mean for row in self.rows if (n := self.number(row, column)) is not None}
        if not known:
            return set()
        top = min(known.values()) if low else max(known.values())
        return {row for row, value in known.items() if value == top}

    # ---- the three forms -------------------------------------------------------------------------------------
    def markdown(self) -> str:
        """A Markdown table, the best of each column bold, the interval behind the mean."""
        lines = [[self.corner, *self.columns], ["---", *("---:" for _ in self.columns)]]
        for row in self.rows:
            cells = [self._text(row, column) for column in self.columns]
            lines.append([row, *cells])
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{body}\n\n{self.note}\n" if self.note else f"{body}\n"

    def _text(self, row: str, column: str) -> str:
        number = self.number(row, column)
        if number is None:
            return "-"
        text = shown(number, 2 if column == RANK else 3)
        return f"**{text}**" if row in self.best(column) else text

    def csv(self) -> str:
        """A line per cell: row, column, mean, low, high, how many values."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([self.corner or "row", "column", "mean", "low", "high", "values"])
        for row in self.rows:
            for column in self.columns:
                number = self.number(row, column)
                if number is not None:
                    ends = ["" if end is None else repr(end) for end in (number.low, number.high)]
                    writer.writerow([row, column, repr(number.mean), *ends, len(number.values)])
        return out.getvalue()

    def latex(self) -> str:
        """A ``tabular`` with booktabs' rules; as subscript half the interval's width, or the interval where it is not
        centred; the best of each column bold.
        """
        head = " & ".join(escape(name) for name in (self.corner, *self.columns))
        lines = [f"% {self.title}", rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}", r"\toprule", head + r" \\"]
        lines.append(r"\midrule")
        for row in self.rows:
            cells = [self._latex(row, column) for column in self.columns]
            lines.append(" & ".join([escape(row), *cells]) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def _latex(self, row: str, column: str) -> str:
        number = self.number(row, column)
        if number is None:
            return "--"
        places = 2 if column == RANK else 3
        value = f"{number.mean:.{places}f}"
        value = rf"\mathbf{{{value}}}" if row in self.best(column) else value
        if number.low is None or number.high is None:
            return f"${value}$"
        if not math.isclose(number.high - number.mean, number.mean - number.low, abs_tol=1e-9):  # cut at 0 or 1
            return rf"${value}_{{[{number.low:.{places}f}, {number.high:.{places}f}]}}$"
        return rf"${value}_{{\pm {(number.high - number.low) / 2:.{places}f}}}$"


def shown(number: Number, places: int = 3) -> str:
    """``mean [low, high]``, or the mean alone where there is no interval."""
    if number.low is None or number.high is None:
        return f"{number.mean:.{places}f}"
    return f"{number.mean:.{places}f} [{number.low:.{places}f}, {number.high:.{places}f}]"


_TEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}  # fmt: skip


def escape(text: str) -> str:
    """Text for LaTeX."""
    return "".join(_TEX.get(letter, letter) for letter in text)


def pivot(
    records: Iterable[Record],
    *,
    rows: str | Callable[[Record], str],
    columns: str | Callable[[Record], str],
    number: str = "accuracy",
    title: str = "",
    corner: str = "",
    better: Better = "high",
    note: str = "",
) -> Table:
    """Records to a table; a cell is the mean over its records (one per seed) with Student's interval.

    Args:
        records: what was measured; one without ``number`` is left out.
        rows: key of the rows' names in a record, or a function of it.
        columns: the same for the columns.
        number: which number of a record.
        title: of the table.
        corner: heading of the first column.
        better: whether high or low is good.
        note: passed on.

    Raises:
        UserError: no record has that number.
    """
    values: dict[tuple[str, str], dict[Any, list[float]]] = {}
    for record in records:
        value = record["numbers"].get(number)
        if value is None or not math.isfinite(value):
            continue
        place = (_name(record, rows), _name(record, columns))
        values.setdefault(place, {}).setdefault(record.get("seed"), []).append(float(value))
    if not values:
        raise UserError(f"table {title!r}: nothing was measured that has {number!r}")
    by_seed = {place: [float(np.mean(found)) for found in seeds.values()] for place, seeds in values.items()}
    return Table(
        title=title,
        rows=tuple(dict.fromkeys(row for row, _ in values)),
        columns=tuple(dict.fromkeys(column for _, column in values)),
        cells={place: Number.of(found, within=extent(number)) for place, found in by_seed.items()},
        better=better,
        corner=corner,
        note=note,
        within=extent(number),
    )


def _name(record: Record, key: str | Callable[[Record], str]) -> str:
    return str(key(record) if callable(key) else record[key])


def complete(table: Table) -> tuple[list[int], list[int]]:
    """Positions of the rows and columns that can be ranked: rows with at least half of the columns, then the columns
    that all of these rows have.
    """
    there = np.isfinite(table.means())
    rows = [i for i in range(len(table.rows)) if 2 * there[i].sum() >= len(table.columns)]
    columns = [j for j in range(len(table.columns)) if rows and there[rows, j].all()]
    return rows, columns


def with_summary(table: Table) -> Table:
    """The table with the columns "mean" (over the columns that all ranked rows have) and "mean rank".

    The interval of a mean is over the seeds: the values of one seed are averaged over the columns first. A table in
    which fewer than two rows or one column can be ranked comes back as it is.
    """
    rows, columns = complete(table)
    if len(rows) < 2 or not columns:
        return table
    names = [table.columns[j] for j in columns]
    ranks = rank_rows(table.means(names)[rows].T, table.better).mean(0)
    cells = dict(table.cells)
    for position, i in enumerate(rows):
        row = table.rows[i]
        found = [table.cells[row, name].values for name in names]
        paired = len({len(values) for values in found}) == 1
        values = np.mean(found, axis=0) if paired else float(np.mean([np.mean(v) for v in found]))
        cells[row, MEAN] = Number.of(values, within=table.within)
        cells[row, RANK] = Number(float(ranks[position]), values=(float(ranks[position]),))
    left = [name for name in table.columns if name not in names]
    left_out = f"mean and rank are over the columns that all have, without {', '.join(left)}" if left else ""
    note = "; ".join(part for part in (table.note, left_out) if part)
    extra = (MEAN, RANK)
    columns_now = (*table.columns, *extra)
    return replace(table, columns=columns_now, cells=cells, note=note, summary=extra)


def comparison(table: Table, alpha: float = 0.05) -> Comparison | None:
    """Friedman and Nemenyi over the columns of a table, None where there is too little to rank."""
    plain = [name for name in table.columns if name not in table.summary]
    kept = Table(table.title, table.rows, tuple(plain), table.cells, table.better)
    rows, columns = complete(kept)
    if len(rows) < 2 or len(columns) < 2:
        return None
    scores = kept.means()[np.ix_(rows, columns)].T
    return compare([kept.rows[i] for i in rows], scores, better=table.better, alpha=alpha)


def write(table: Table, stem: Any) -> list[Any]:
    """Write STEM.md, STEM.csv and STEM.tex; returns their paths."""
    from selftaught.run.layout import write_text

    written = []
    for suffix, text in (
        (".md", f"# {table.title}\n\n{table.markdown()}"),
        (".csv", table.csv()),
        (".tex", table.latex()),
    ):
        path = stem.with_name(stem.name + suffix)
        write_text(path, text)
        written.append(path)
    return written
