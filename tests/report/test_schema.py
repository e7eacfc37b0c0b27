from __future__ import annotations

import base64
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selftaught import report
from selftaught.errors import UserError
from selftaught.report.validation import plain, validate
from tests.report import samples

PIXEL = report.images.encode(np.zeros((2, 2), np.uint8), format="png")


def test_a_rich_run_passes_and_comes_back_plain() -> None:
    run = validate(samples.image_run())
    assert isinstance(run["metrics"]["series"]["loss"], list)
    assert run["metrics"]["series"]["loss"][300] is None
    assert type(run["map"]["label"][0]) is int
    assert validate(run) == run


def test_validation_leaves_its_argument_alone() -> None:
    steps = np.arange(3)
    run = {"metrics": {"step": steps, "series": {"loss": [1.0, math.nan, 2.0]}}}
    validate(run)
    assert run["metrics"]["step"] is steps
    assert math.isnan(run["metrics"]["series"]["loss"][1])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"label_eff": {}}, "has no key 'label_eff'; did you mean 'label_efficiency'?"),
        ({"metrics": [1]}, "metrics should be a dict, not list"),
        ({"title": 3}, "title should be text"),
        ({"seconds": "long"}, "seconds should be a number"),
        ({"seconds": True}, "seconds should be a number"),
        ({"source": {"train": 1.5}}, "source.train should be a whole number"),
        (
            {"metrics": {"step": [1, 2], "series": {"loss": [1]}}},
            "metrics.series.loss has 1 values where metrics.step has 2",
        ),
        ({"metrics": {"step": [1], "series": {"terms": {"a": []}}}}, "metrics.series.terms.a has 0 values"),
        ({"metrics": {"series": {"knn": [[1, 2, 3]]}}}, "metrics.series.knn[0] should be [step, accuracy]"),
        (
            {"label_efficiency": {"x": [1], "curves": [{"mean": [1, 2]}]}},
            "label_efficiency.curves[0].mean has 2 values where label_efficiency.x has 1",
        ),
        ({"label_efficiency": {"x": [1], "curves": [{"name": "a"}]}}, "label_efficiency.curves[0] has no 'mean'"),
        (
            {"label_efficiency": {"x": [1], "curves": [{"mean": [1], "role": "mine"}]}},
            "label_efficiency.curves[0].role is 'mine'",
        ),
        ({"map": {"xy": [[1, 2, 3]]}}, "map.xy[0] should be [x, y]"),
        ({"map": {"xy": [[1, 2]], "label": [0, 1]}}, "map.label has 2 values where map.xy has 1"),
        ({"map": {"xy": [[1, 2]], "label": [2], "classes": ["a", "b"]}}, "map.label[0] is 2; map.classes has 2 names"),
        ({"map": {"xy": [[1, 2]], "thumbs": {"image": PIXEL, "tile": 8}}}, "map.thumbs has no 'columns'"),
        ({"neighbours": [{"query": "@@"}]}, "neighbours[0].query should be a PNG, JPEG or WebP as base64 text"),
        ({"neighbours": [{"hits": []}]}, "neighbours[0] has no 'query' picture"),
        ({"neighbours": [{"query": PIXEL, "hits": [{"label": "a"}]}]}, "neighbours[0].hits[0] has no 'png' picture"),
        (
            {"views": {"columns": ["a"], "rows": [[PIXEL, PIXEL]]}},
            "views.rows[0] has 2 values where views.columns has 1",
        ),
        ({"restoration": [{"noisy": PIXEL}]}, "restoration[0] has no 'restored' picture"),
        (
            {"restoration": [{"noisy": PIXEL, "restored": PIXEL, "crops": [[0, 0, 4]]}]},
            "restoration[0].crops[0] should be [x, y, width, height]",
        ),
        ({"series": {"windows": [{"channels": [[1, 2], [1]]}]}}, "series.windows[0].channels[1] has 1 values"),
        ({"series": {"confusion": {"matrix": [[1]], "classes": ["a", "b"]}}}, "series.confusion.matrix has 1 values"),
        ({"confusion": {"matrix": [[1, 2], [3]], "classes": ["a", "b"]}}, "confusion.matrix[1] has 1 values"),
        (
            {"protocols": [{"name": "k-NN", "this": {"numbers": {"accuracy": 0.5}}}]},
            "protocols[0].this.numbers.accuracy should be a dict",
        ),
    ],
)
def test_what_is_out_of_shape_is_named(run: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        report.write(tmp_path / "report.html", [run])
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_of_several_runs_the_message_says_which() -> None:
    with pytest.raises(UserError, match=r"title should be text.*\(run 2 of 2\)"):
        report.render([{}, {"title": 1}])


@pytest.mark.parametrize("runs", [[], {}, {"title": "x"}])
def test_runs_is_a_list_with_something_in_it(runs: Any) -> None:
    with pytest.raises(UserError, match="list with one dict per run"):
        report.render(runs)
    with pytest.raises(UserError, match="a run is a dict"):
        report.render(["x"])


def test_pictures_lose_their_prefix_and_must_be_pictures() -> None:
    run = validate({"neighbours": [{"query": f"data:image/png;base64,{PIXEL}"}]})
    assert run["neighbours"][0]["query"] == PIXEL
    svg = base64.b64encode(b"<svg onload=alert(1)>").decode()
    for bad in (svg, PIXEL + '" onerror="alert(1)', "", "data:image/png;base64,"):
        with pytest.raises(UserError, match="it is none"):
            validate({"neighbours": [{"query": bad}]})


def test_plain_takes_numpy_and_paths() -> None:
    value = {"a": np.float32(0.5), "b": (Path("x"), {2, 1}), 3: np.array([[1, 2]], np.uint8)}
    assert plain(value) == {"a": 0.5, "b": ["x", [1, 2]], "3": [[1, 2]]}


def test_none_sections_are_as_good_as_missing() -> None:
    names = set(report.Run.__annotations__) - {"title", "method", "method_title", "created", "command"}
    run = dict.fromkeys(names)
    assert report.render([run]) == report.render([{}])
