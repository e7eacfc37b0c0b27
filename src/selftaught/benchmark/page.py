"""The HTML page of a grid: tables, ranks, matrices, what failed, and how to repeat it. One self-contained file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from selftaught._words import plural
from selftaught.benchmark.plan import Grid
from selftaught.benchmark.summary import Made
from selftaught.benchmark.tables import RANK, Table, shown
from selftaught.run.layout import environment, write_text


def write(
    grid: Grid, folder: Path, records: Sequence[Mapping[str, Any]], failures: Mapping[str, str], made: Made
) -> Path:
    """Write ``index.html`` of a grid's folder; returns its path."""
    views = Environment(
        loader=ChoiceLoader([PackageLoader("selftaught.benchmark"), PackageLoader("selftaught.report")]),
        autoescape=lambda name: name is not None and not name.endswith(".js"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = views.get_template("script.js").render()
    text = views.get_template("grid.html.j2").render(
        title=str(grid.config.get("title") or grid.name),
        facts=_facts(grid, records, failures),
        tables=[_table(name, table, says, made) for name, table, says in made.tables],
        figures=[{"uri": _uri(path), "caption": caption} for path, caption in made.figures],
        failures=dict(failures),
        recipe=yaml.safe_dump(grid.config, sort_keys=False, allow_unicode=True),
        machine=", ".join(f"{name} {value}" for name, value in environment().items()),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    path = folder / "index.html"
    write_text(path, text)
    return path


def _facts(grid: Grid, records: Sequence[Mapping[str, Any]], failures: Mapping[str, str]) -> list[tuple[str, str]]:
    def kinds(key: str) -> str:
        return ", ".join(str(value) for value in dict.fromkeys(record[key] for record in records))

    seeds = len({record["seed"] for record in records})
    return [
        ("Methods", kinds("name")),
        ("Data", kinds("data")),
        ("Encoders", kinds("encoder")),
        ("Starts", kinds("start")),
        ("Cells", f"{len(grid.cells) - len(failures)} of {len(grid.cells)} done, {plural(seeds, 'seed')}"),
    ]


def _table(name: str, table: Table, says: str, made: Made) -> dict[str, Any]:
    test = made.comparisons.get(name)
    best = {column: table.best(column) for column in table.columns}
    rows = [
        {"name": row, "cells": [_cell(table, row, column, row in best[column]) for column in table.columns]}
        for row in table.rows
    ]
    told = [says, f"{test.sentence()}." if test else "", f"{table.note}." if table.note else ""]
    return {
        "name": name, "title": table.title, "says": " ".join(part for part in told if part), "corner": table.corner,
        "columns": table.columns, "rows": rows,
    }  # fmt: skip


def _cell(table: Table, row: str, column: str, best: bool) -> dict[str, Any]:
    number = table.number(row, column)
    if number is None:
        return {"mean": "–", "spread": "", "best": False}
    mean, _, spread = shown(number, 2 if column == RANK else 3).partition(" ")
    return {"mean": mean, "spread": spread, "best": best}


def _uri(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
