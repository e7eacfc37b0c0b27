"""Scores that are taken while a run learns: where they land, and what they change (nothing)."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import selftaught
from selftaught import methods
from selftaught.data import open_source
from selftaught.data.kinds import kind_of
from selftaught.engine.callbacks import Metrics, OnlineScores
from selftaught.engine.progress import Progress
from selftaught.errors import UserError
from selftaught.report import curves
from selftaught.run import stages
from tests.conftest import TINY


def rows(run: selftaught.Run) -> list[dict[str, str]]:
    with run.layout.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_columns_of_their_own_step_and_change_no_weight(tmp_path: Path) -> None:
    options: dict[str, Any] = TINY | {"steps": 2, "log_every": 1, "knn_every": 0.5, "loggers": ["none"]}
    run = selftaught.train("simclr", "digits", out=str(tmp_path / "run"), monitor="both", **options)
    found = rows(run)
    assert [row["step"] for row in found] == ["1", "2"]
    for column in ("knn", "probe"):
        assert all(0.15 < float(row[column]) <= 1 for row in found)  # chance is 0.1
    still = selftaught.train("simclr", "digits", out=str(tmp_path / "still"), **options | {"knn_every": 0})
    assert [row["loss"] for row in rows(still)] == [row["loss"] for row in found]


@pytest.mark.parametrize(
    ("monitored", "columns"), [("knn", {"knn"}), ("linear", {"probe"}), ("both", {"knn", "probe"})]
)
def test_what_is_scored_is_chosen(monitored: str, columns: set[str]) -> None:
    source = open_source("digits?n=80")
    scores = stages._scorer((source, source), monitored, lambda line: None)
    found = scores(
        methods.SimCLR(**{k: v for k, v in TINY.items() if k in ("encoder", "stem", "image_size")}, channels=1)
    )
    assert set(found) == columns


def test_rows_are_appended_and_the_file_is_whole_whatever_happens_to_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    trainer: Any = SimpleNamespace(world_size=1, optimizers=[], is_global_zero=True)

    def kept() -> list[tuple[str, str | None]]:
        with path.open(newline="") as file:
            return [(row["step"], row.get("knn")) for row in csv.DictReader(file)]

    def row(metrics: Metrics, step: int, **extra: float) -> None:
        metrics._count, metrics.extra = 1, extra
        metrics.flush(trainer, step)

    metrics = Metrics(path, "train", 1, 2)
    row(metrics, 1)
    first = path.stat().st_ino
    row(metrics, 2)
    assert path.stat().st_ino == first  # at its end: a row costs the same after ten thousand
    assert kept() == [("1", None), ("2", None)]
    row(metrics, 3, knn=0.5)  # a column that was not there
    assert kept() == [("1", ""), ("2", ""), ("3", "0.5")]
    row(metrics, 4)
    assert kept() == [("1", ""), ("2", ""), ("3", "0.5"), ("4", "")]
    path.unlink()
    row(metrics, 5)
    row(metrics, 5)  # the end of a run writes its last row once more
    assert [step for step, _ in kept()] == ["1", "2", "3", "4", "5"]
    later = Metrics(path, "train", 1, 2)  # gone on with from step 3: what came after it goes
    later.on_train_start(SimpleNamespace(), SimpleNamespace(steps=3, device="cpu"))  # type: ignore[arg-type]
    row(later, 4)
    assert kept() == [("1", ""), ("2", ""), ("3", "0.5"), ("4", "")]


def test_every_score_has_a_chart_of_its_own() -> None:
    metrics = {"step": [1, 2], "series": {"knn": [[1, 0.2], [2, 0.3]], "probe": [[2, 0.5]]}, "chance": 0.1}
    for name, title in curves.SCORES.items():
        chart = curves.score_chart(metrics, name)
        assert chart is not None
        assert chart.y_label == f"{title} accuracy"
    assert curves.score_points(metrics, "probe") == ([2], [0.5])


def test_scores_are_never_more_than_the_steps(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.csv", "train", 1, 2)
    assert OnlineScores(lambda module: {}, 20, 1e-12, metrics).steps == set(range(1, 21))
    assert OnlineScores(lambda module: {}, 20, 0.5, metrics).steps == {10, 20}


@pytest.mark.parametrize("text", ["stage,step\ntrain,x\n", "nothing\n1\n", "stage,step\ntrain\n"])
def test_damaged_metrics_are_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    metrics = Metrics(tmp_path / "metrics.csv", "train", 1, 2)
    with pytest.raises(UserError, match="damaged"):
        metrics.on_train_start(None, SimpleNamespace(steps=3))


def test_without_a_terminal_a_line_says_how_long_the_rest_takes(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("run", 9, SimpleNamespace(last={"loss": "0.5", "per_second": "12.3"}, rows=[]))  # type: ignore[arg-type]
    trainer, module = SimpleNamespace(is_global_zero=True), SimpleNamespace(modality="image", steps=1)
    progress.on_train_start(trainer, module)  # type: ignore[arg-type]
    progress._began -= 7200  # two hours for two steps, so an hour for each of the six that are left
    progress._printed -= 60
    module.steps = 3
    progress.on_train_batch_end(trainer, module, None, None, 0)  # type: ignore[arg-type]
    progress.on_train_batch_end(trainer, module, None, None, 0)  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "run: 9 steps"
    assert re.fullmatch(r"run: step 3/9, 6:00:\d\d left  loss 0.5  12 images/s", lines[1])
    assert len(lines) == 2, "one line, not one for every step"


@pytest.mark.parametrize(
    ("modality", "said"), [("image", "12 images/s"), ("clip", "12 clips/s"), ("series", "12 windows/s")]
)
def test_throughput_is_counted_in_what_is_learnt_from(modality: str, said: str) -> None:
    progress = Progress("run", 3, SimpleNamespace(last={"per_second": "12.3"}, rows=[]))  # type: ignore[arg-type]
    progress.on_train_start(SimpleNamespace(is_global_zero=True), SimpleNamespace(modality=modality, steps=0))  # type: ignore[arg-type]
    assert progress._terms() == said
    assert kind_of(modality).rate == said.removeprefix("12 ")
