"""The survey: its grid and table are what they should be, branches are compared seed by seed, a cut one goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from selftaught import catalog, methods
from selftaught.benchmark import plan, ssl_vit_survey
from selftaught.benchmark.costs import measure
from selftaught.benchmark.ssl_vit_survey import LAPTOP, METHODS, grid_config, options_of, sentences
from selftaught.benchmark.survey_table import branch_differences, markdown, rows_of, write_csv_table
from selftaught.errors import UserError
from selftaught.evaluation import paired_difference

COST = {"seconds": 0.25, "megabytes": 40.0, "views": 2.0, "parameters": 10.0, "encoder": 8.0}
SCORES = {
    "moco-v3": {"knn": [0.7, 0.8], "linear": [0.8, 0.9], "finetune": [0.9, 0.9]},
    "dino": {"knn": [0.5, 0.6], "linear": [0.6, 0.7], "finetune": [0.7, 0.8]},
    "mae": {"knn": [0.4, 0.6], "linear": [0.5, 0.6], "finetune": [0.9, 0.95]},
    "untrained": {"knn": [0.3, 0.3]},
}


def records() -> list[dict[str, Any]]:
    return [
        {"name": name, "protocol": protocol, "seed": seed, "numbers": {"accuracy": value}}
        for name, protocols in SCORES.items()
        for protocol, values in protocols.items()
        for seed, value in enumerate(values)
    ]


def test_representatives_cover_every_branch_and_say_what_they_use() -> None:
    chosen = {slug for slug in methods.built() if catalog.card(slug).representative}
    assert chosen == set(METHODS)
    assert {catalog.branch_of(catalog.card(slug)) for slug in METHODS} == {"view-based", "masked", "hybrid", "pretext"}
    assert all(catalog.card(slug).mechanism for slug in METHODS)
    assert catalog.card("ssl-vit-survey").built


def test_a_row_holds_quality_cost_and_needs() -> None:
    rows = rows_of(
        records(), {"moco-v3": COST, "dino": COST, "mae": COST}, {"moco-v3": 100, "dino": 100, "mae": 100}, 64
    )
    assert [row.name for row in rows] == ["moco-v3", "dino", "mae", "untrained"]
    first = rows[0]
    assert (first.branch, first.images, first.steps) == ("view-based", 12800, 100)
    assert "negatives" in first.uses
    text = markdown(rows)
    assert "| view-based | `moco-v3` | 75.0 " in text
    assert "| beside | `untrained` | 30.0 |" in text


def test_branches_are_compared_seed_by_seed() -> None:
    found = branch_differences(rows_of(records(), {}, {}, 64))
    expected = paired_difference([0.6, 0.7], [0.4, 0.6]).to_dict()
    assert found["knn"] == {"view-based minus masked": expected}
    gain = found["gain by fine-tuning"]["view-based minus masked"]
    assert gain["mean"] == pytest.approx(((0.1 - 0.4) + (0.05 - 0.35)) / 2)
    lines = sentences(found)
    assert len(lines) == 4
    assert lines[0].startswith("- knn, view-based minus masked: +0.150 [")
    one = [record for record in records() if record["seed"] == 0]
    assert "one seed" in sentences(branch_differences(rows_of(one, {}, {}, 64)))[0]


def test_the_table_is_written_with_a_column_per_seed(tmp_path: Path) -> None:
    write_csv_table(rows_of(records(), {"mae": COST}, {"mae": 10}, 64), tmp_path / "survey.csv")
    rows = list(csv.DictReader((tmp_path / "survey.csv").open()))
    mae = next(row for row in rows if row["method"] == "mae")
    assert (mae["knn_0"], mae["finetune_1"], mae["images"], mae["uses"]) == ("0.4", "0.95", "1280", "masks decoder")


def test_all_have_one_encoder_crop_optimiser_and_budget() -> None:
    options = {slug: options_of(slug, LAPTOP, full=False) for slug in (*METHODS, "supervised")}
    config = grid_config("digits", METHODS, LAPTOP, options, dict.fromkeys(options, 50), 2)
    cells = plan.read(config).cells
    assert len(cells) == 2 * (len(METHODS) + 2)
    for cell in cells:
        assert cell["encoder"] == "vit-micro"
        shared = {k: v for k, v in LAPTOP.items() if k != "encoder"}
        assert shared.items() <= cell["options"].items(), cell["name"]
        assert cell["method"] == "untrained" or cell["options"]["steps"] == 50
        assert cell["judge"]["probe"] == ["linear", "finetune"]
        assert cell["judge"]["recipe"] == "vit"
    full = options_of("mae", ssl_vit_survey.FULL, full=True)
    assert full["preset"] == "imagenet"
    with pytest.raises(UserError, match="probe 'guess'"):
        plan.read(config | {"probe": ["linear", "guess"]})
    with pytest.raises(UserError, match="recipe 'guess'"):
        plan.read(config | {"recipe": "guess"})


def test_one_budget_and_a_folder_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one budget"):
        ssl_vit_survey.run(steps=5, seconds=3.0)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        ssl_vit_survey.run(out=tmp_path, steps=5)


@pytest.mark.slow
def test_it_runs_and_goes_on(tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": "digits?n=70", "methods": ["mae"], "seeds": 1, "out": tmp_path / "s"}
    found = ssl_vit_survey.run(seconds=0.05, **given)
    assert [row.name for row in found.rows] == ["mae", "supervised", "untrained"]
    assert all({"knn", "linear", "finetune"} <= set(row.scores) for row in found.rows)
    stored = json.loads((found.folder / "survey.json").read_text())
    costs = json.loads((found.folder / "costs.json").read_text())
    assert stored["steps"]["mae"] == max(1, round(0.05 / costs["mae"]["seconds"]))
    assert markdown(found.rows) in (found.folder / "survey.md").read_text()
    again = ssl_vit_survey.run(seconds=0.05, **given)
    assert again.grid.trained == 0
    assert [row.to_dict() for row in again.rows] == [row.to_dict() for row in found.rows]


@pytest.mark.slow
def test_a_cost_is_of_one_step() -> None:
    options = options_of("rotation", LAPTOP, full=False)
    small, large = (measure("rotation", "digits?n=70", options | {"batch_size": size}, steps=5) for size in (8, 32))
    assert small["views"] == 1
    assert small["encoder"] < small["parameters"] == large["parameters"]
    weights = 4 * 4 * small["parameters"] / 2**20
    assert weights < small["megabytes"]
    assert 3 < (large["megabytes"] - weights) / (small["megabytes"] - weights) < 4.1
    with pytest.raises(UserError, match="steps=4"):
        measure("rotation", "digits?n=70", options, steps=4)
