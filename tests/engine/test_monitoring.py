"""Scores that are taken while a run learns: where they land, and what they change (nothing)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import selftaught
from selftaught.report import curves
from tests.conftest import TINY


def rows(run: selftaught.Run) -> list[dict[str, str]]:
    with run.layout.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("monitor", "columns"), [("knn", {"knn"}), ("linear", {"probe"}), ("both", {"knn", "probe"})])
def test_scores_are_columns_and_curves_and_change_no_weight(tmp_path: Path, monitor: str, columns: set[str]) -> None:
    options: dict[str, Any] = TINY | {"steps": 2, "log_every": 1, "knn_every": 0.5, "loggers": ["none"]}
    run = selftaught.train("simclr", "digits", out=str(tmp_path / "run"), monitor=monitor, **options)
    found = rows(run)
    assert {"knn", "probe"} & set(found[0]) == columns
    for column in columns:
        assert all(0.15 < float(row[column]) <= 1 for row in found)  # chance is 0.1
    page = run.report().read_text(encoding="utf-8")
    for name, title in curves.SCORES.items():
        assert (f"online {title}" in page) == (name in columns)
    if monitor == "both":
        still = selftaught.train("simclr", "digits", out=str(tmp_path / "still"), **options | {"knn_every": 0})
        assert [row["loss"] for row in rows(still)] == [row["loss"] for row in found]
