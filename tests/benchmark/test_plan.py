"""From YAML to cells: the product, what makes two cells the same, and errors in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selftaught.benchmark import plan
from selftaught.benchmark.cells import key_of
from selftaught.errors import UserError

SMALL: dict[str, Any] = {"methods": ["simclr", "byol"], "data": ["digits"], "options": {"steps": 5}}


def test_the_product_of_the_axes_and_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "methods: [simclr, {method: dcl, temperature: 0.2}]\nsources: {d: 'digits?n=500', both: [d, photos]}\n"
        "data: [d, both]\nencoders: [resnet10, resnet18]\ninitialisations: [random, imagenet]\nseeds: [3, 5]\n"
    )
    grid = plan.read(file)
    assert grid.name == "mine"
    assert len(grid.cells) == 2 * 2 * 2 * 2 * 2
    assert len({cell["key"] for cell in grid.cells}) == len(grid.cells)
    assert {cell["name"] for cell in grid.cells} == {"simclr", "dcl temperature=0.2"}
    single = next(cell for cell in grid.cells if cell["data"] == "d")
    assert single["sources"] == {"d": "digits?n=500"}
    assert single["judge"]["own"] == "d"
    assert single["judge"]["on"] == {"d": "digits?n=500"}
    union = next(cell for cell in grid.cells if cell["data"] == "both")
    assert union["sources"] == {"d": "digits?n=500", "photos": "photos"}
    assert union["judge"]["own"] == ""
    assert union["judge"]["on"] == {"d": "digits?n=500"}  # the data that are not unions
    assert {cell["start"]["name"] for cell in grid.cells} == {"random", "imagenet"}


def test_label_fractions_are_cells_for_methods_with_labels_only() -> None:
    grid = plan.read(SMALL | {"methods": ["simclr", "supervised"], "fractions": [0.1, 1], "seeds": 1})
    assert [(c["method"], c["fraction"]) for c in grid.cells] == [
        ("simclr", 1.0), ("supervised", 0.1), ("supervised", 1.0)
    ]  # fmt: skip
    assert all(cell["judge"]["fractions"] == [0.1, 1.0] for cell in grid.cells)


def test_the_key_is_of_what_decides_the_weights() -> None:
    (cell,) = plan.read(SMALL | {"methods": ["simclr"], "seeds": 1}).cells
    judged = plan.read(SMALL | {"methods": ["simclr"], "seeds": 1, "fractions": [0.5], "probe": "knn"}).cells[0]
    assert judged["key"] == cell["key"]
    renamed = {"methods": [{"method": "simclr", "name": "other"}], "sources": {"d": "digits"}, "data": ["d"]}
    assert plan.read(SMALL | renamed | {"seeds": 1}).cells[0]["key"] == cell["key"]
    for change in (
        {"options": {"steps": 6}}, {"data": ["photos"]}, {"encoders": ["resnet18"]}, {"initialisations": ["imagenet"]},
        {"seeds": [1]}, {"methods": ["byol"]},
    ):  # fmt: skip
        (other,) = plan.read(SMALL | {"methods": ["simclr"], "seeds": 1} | change).cells
        assert other["key"] != cell["key"], change
    assert key_of(cell | {"label": "x", "judge": {}}) == cell["key"]


def test_blocks_change_keys_and_share_cells() -> None:
    blocks = [{}, {"methods": ["dcl"], "options": {"lr": 0.1}}, {"methods": ["simclr"]}]
    grid = plan.read(SMALL | {"seeds": 1, "blocks": blocks})
    assert [cell["method"] for cell in grid.cells] == ["simclr", "byol", "dcl"]
    assert grid.cells[2]["options"] == {"steps": 5, "lr": 0.1}


def test_overrides_by_pattern() -> None:
    rule = {"where": {"encoder": "vit*", "method": ["byol", "dcl"]}, "options": {"lr": 0.5}}
    grid = plan.read(SMALL | {"seeds": 1, "encoders": ["resnet18", "vit_small_patch16_224"], "overrides": [rule]})
    changed = {(c["method"], c["encoder"]) for c in grid.cells if "lr" in c["options"]}
    assert changed == {("byol", "vit_small_patch16_224")}


def test_a_trained_start_comes_first_and_is_shown_only_where_it_is_a_cell_of_its_own() -> None:
    start = {"name": "warm", "method": "supervised", "data": "photos", "steps": 7}
    grid = plan.read(SMALL | {"seeds": 2, "initialisations": [start]})
    firsts = [cell for cell in grid.cells if cell["first"]]
    assert [cell["seed"] for cell in firsts] == [0, 1]
    assert all(c["hidden"] and c["options"]["steps"] == 7 and c["sources"] == {"photos": "photos"} for c in firsts)
    by_seed = {cell["seed"]: cell["key"] for cell in firsts}
    assert all(c["start"] == {"name": "warm", "key": by_seed[c["seed"]]} for c in grid.cells if c not in firsts)
    shown = {"methods": [{"method": "supervised", "steps": 7}], "data": ["photos"], "initialisations": ["random"]}
    both = plan.read(SMALL | {"seeds": 1, "initialisations": [start], "blocks": [{}, shown]})
    assert [(c["method"], c["first"], c["hidden"]) for c in both.cells] == [
        ("supervised", True, False), ("simclr", False, False), ("byol", False, False)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metods": ["simclr"]}, "did you mean methods"),
        ({"methods": ["simclear"]}, "did you mean simclr"),
        ({"methods": []}, "names no methods"),
        ({"data": None}, "names no data"),
        ({"options": {"stepz": 3}}, "did you mean steps"),
        ({"options": {"seed": 3}}, "'seed' is no option of the runs of a grid: give seeds"),
        ({"options": {"workers": 3}}, "give workers to the command"),
        ({"probe": "cubic"}, "linear-sgd"),
        ({"ood": ["vote"]}, "mahalanobis"),
        ({"fractions": [2]}, "share of the labels"),
        ({"seeds": 0}, "how many"),
        ({"limits": [3]}, "two numbers"),
        ({"initialisations": ["magic"]}, "random, imagenet"),
        ({"initialisations": [{"name": "x"}]}, "give run"),
        ({"overrides": [{"where": {"colour": "red"}}]}, "colour"),
        ({"blocks": {}}, "list of mappings"),
        ({"blocks": [{"name": "x"}]}, "no key 'name'"),
        ({"sources": {"digits": []}}, "empty list"),
    ],
)
def test_errors_are_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        plan.read(SMALL | change)
    assert "\n" not in str(raised.value)
