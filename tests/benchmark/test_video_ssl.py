"""The video benchmark: nested subsets, every cell once, rows of all factors, and that it goes on where it stopped."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from selftaught.benchmark import video_ssl
from selftaught.benchmark.video_cells import COMPLEXITY, ENCODERS, FACTORS, PRETEXTS, Plan, cells_of, nested_subsets
from selftaught.cli import main
from selftaught.errors import UserError

SOURCE = "motion?train=16&test=8&frames=70&side=16"
TINY = Plan(
    sources={"square": SOURCE, "disc": SOURCE + "&shape=disc"},
    targets={"square": SOURCE},
    methods=("video-rotnet", "rspnet"),
    encoders=("cnn-small-video",),
    sizes=(8, 16),
    preset="laptop",
    options={"steps": 1, "batch_size": 4, "image_size": 16},
    protocols=("linear", "recall"),
)


def test_subsets_lie_in_each_other_with_as_many_of_each_class() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 30))
    found = nested_subsets(labels, (12, 40, 80, 0), seed=3)
    assert [len(rows) for rows in found.values()] == [12, 40, 80, 120]
    for small, large in ((12, 40), (40, 80), (80, 0)):
        assert set(found[small]) <= set(found[large])
        assert set(np.bincount(labels[found[small]])) == {small // 4}
    again = nested_subsets(labels, (40,), seed=3)
    np.testing.assert_array_equal(again[40], found[40])
    with pytest.raises(UserError, match="sizes of 0 or more"):
        nested_subsets(labels, (-1,))


def test_the_whole_grid_holds_every_cell_once() -> None:
    plan = Plan(sources={"k400": "k", "ssv2": "s"}, targets={"ucf": "u"})
    cells = cells_of(plan)
    assert len({cell.key for cell in cells}) == len(cells)
    sized = [cell for cell in cells if "size" in cell.factors]
    assert len(sized) == len(PRETEXTS) * len(ENCODERS) * 4
    harder = [cell for cell in cells if "complexity" in cell.factors]
    assert {(c.method, c.options[COMPLEXITY[c.method][0]]) for c in harder} == {
        (method, value) for method, (_, values) in COMPLEXITY.items() for value in values
    }
    assert {c.source for c in cells if "shift" in c.factors} == {"k400", "ssv2"}
    assert {factor for cell in cells for factor in cell.factors} == set(FACTORS)
    with pytest.raises(UserError, match='methods="moco"'):
        Plan(sources={"a": "b"}, targets={"a": "b"}, methods=("moco",))


def test_without_data_or_quick_it_says_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="give data=SOURCE"):
        video_ssl.run()
    assert main(["benchmark", "video"]) == 2
    assert "--quick" in capsys.readouterr().err


@pytest.mark.slow
def test_every_factor_has_its_rows_and_a_second_call_trains_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    found = video_ssl.execute(TINY, tmp_path, say=told.append, brief=True)
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["factor"] for row in rows} == set(FACTORS)
    assert len(found.of("size")) == 4
    assert len(found.of("shift")) == 4
    assert len(found.of("complexity")) == 3
    noisy = found.of("noise")
    assert len(noisy) == 2 * 4 * 3
    assert all(row["drop"] == pytest.approx(row["clean"] - row["linear"]) for row in noisy)
    alike = found.of("similarity")
    assert len(alike) == 3
    own = [row for row in alike if row["other"].startswith(row["method"])]
    assert all(row["last_layer_cka"] == pytest.approx(1) for row in own)
    students = [row for row in found.of("distillation") if row["method"] == "video-distillation"]
    assert students[0]["task"] == "rspnet+video-rotnet"
    assert len(list((tmp_path / "cka").glob("*.csv"))) == 3
    text = "\n".join(found.summary())
    assert all(f"\n{factor}\n" in text for factor in FACTORS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("encoder.safetensors")}
    again = video_ssl.execute(TINY, tmp_path, brief=True)
    assert [row.keys() for row in again.rows] == [row.keys() for row in found.rows]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("encoder.safetensors")} == before


def test_a_dry_run_names_every_network_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["benchmark", "video", "--quick", "--dry-run", "--out", str(tmp_path / "b")]
    assert main([*given, "--methods", "cvrl,video-rotnet", "--factors", "size,complexity"]) == 0
    lines = "".join(capsys.readouterr()).splitlines()
    assert sum(line.startswith("cvrl with cnn-small-video, ") and line.endswith(": size") for line in lines) == 3
    assert sum("rotations=" in line and "complexity" in line for line in lines) == 3
    assert lines[-1].startswith(f"{sum(' with ' in line for line in lines)} networks, 0 of them done, and 0 distilled")
    assert not (tmp_path / "b").exists()
    assert main(["benchmark", "video", "--data", str(tmp_path / "gone"), "--dry-run"]) == 2
