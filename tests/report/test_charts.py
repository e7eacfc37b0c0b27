from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest

from selftaught import report
from selftaught.errors import UserError
from selftaught.report import compare, curves, plates, scales, sections, svg, text
from selftaught.report.lines import Chart, Line, describe, draw, thin
from selftaught.report.validation import validate
from tests.report import samples


def test_scale_is_linear_or_logarithmic() -> None:
    line = scales.Scale(0, 10, 100, 0)
    assert [line(v) for v in (0, 5, 10)] == [100, 50, 0]
    log = scales.Scale(1, 100, 0, 200, log=True)
    assert [log(v) for v in (1, 10, 100)] == [0, 100, 200]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 1200, [0, 200, 400, 600, 800, 1000, 1200]),
        (-3, 3, [-3, -2, -1, 0, 1, 2, 3]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert scales.Scale(low, high, 0, 1).ticks(5) == pytest.approx(ticks)


def test_log_ticks_are_decades_or_their_parts() -> None:
    assert scales.Scale(1e-6, 1, 0, 1, log=True).ticks(3) == pytest.approx([1e-6, 1e-4, 1e-2, 1])
    assert scales.Scale(1, 60, 0, 1, log=True).ticks() == [1, 2, 5, 10, 20, 50]
    assert scales.Scale(3.1, 3.2, 0, 1, log=True).ticks() == [3.1, 3.2]


@pytest.mark.parametrize("values", [[], [3.0], [0.0], [-2.0, -2.0], [1e-30], [1e12, 1e12]])
@pytest.mark.parametrize("log", [False, True])
def test_any_values_make_an_axis(values: list[float], log: bool) -> None:
    scale = scales.fit(values, 0, 100, log=log)
    assert scale.high > scale.low
    assert all(0 <= scale(v) <= 100 for v in values if v > 0 or not log)
    assert scale.ticks()


def test_tick_labels() -> None:
    ticks = [0.0, 0.2, 0.4]
    assert [scales.label(t, ticks) for t in ticks] == ["0", "0.2", "0.4"]
    assert scales.label(-20_000, [-20_000, 0]) == "−20k"
    assert scales.label(2_500_000, [2_500_000]) == "2.5M"
    assert [scales.label(t, [1e-4, 1e-2, 1.0]) for t in (1e-4, 1e-2, 1.0)] == ["10⁻⁴", "10⁻²", "10⁰"]
    assert scales.label(5e-4, [5e-4, 1e-3]) == "5×10⁻⁴"


def test_numbers_for_people() -> None:
    assert [text.number(v) for v in (0.8123, 12.345, 123.45, 12345.6, 7, -0.5, 2.5e-5, None, math.nan)] == [
        "0.812", "12.35", "123.5", "12,346", "7", "−0.500", "2.5e−5".replace("−5", "−05"), "–", "–",
    ]  # fmt: skip
    assert text.number(-0.0001, 2) == "0.00"
    assert text.interval(0.1, 0.2, 2) == "0.10–0.20"
    assert text.interval(-0.1, 0.2, 2) == "−0.10 to 0.20"
    assert text.interval(None, 0.2, 2) == ""
    assert [text.duration(s) for s in (0.42, 48, 185, 7620, None)] == ["0.4 s", "48 s", "3 min 05 s", "2 h 07 min", "–"]
    assert [text.plural(1, "class"), text.plural(2, "class"), text.plural(1200, "sample")] == [
        "1 class",
        "2 classes",
        "1,200 samples",
    ]


def test_notes_become_sentences() -> None:
    assert [text.sentence(t) for t in ("", " over 5 seeds", "Done.", "why?")] == ["", "Over 5 seeds.", "Done.", "Why?"]


@pytest.mark.parametrize("limit", [5, 8, 9, 40])
def test_shorten_keeps_both_ends(limit: int) -> None:
    name = "a" * 20 + "z" * 20
    cut = text.shorten(name, limit)
    assert len(cut) == limit
    assert (cut[0], cut[-1]) == ("a", "z")
    assert ("…" in cut) == (limit < 40)


@pytest.mark.parametrize(
    ("metric", "side"),
    [
        *[(name, "high") for name in ("accuracy", "mAP", "maestro", "psnr")],
        *[(name, "low") for name in ("val_loss", "RMSE", "error rate", "mae", "time")],
        *[(name, "none") for name in ("effective_rank", "uniformity")],
    ],
)
def test_which_side_is_better(metric: str, side: str) -> None:
    assert text.direction(metric) == side


def test_settings_are_flattened_with_their_values_readable() -> None:
    flat = text.flatten({"a": {"b": 1e-4, "c": {"d": None}}, "e": [1, True, 0.5], "f": {}})
    assert flat == {"a.b": "0.0001", "a.c.d": "none", "e": "[1, true, 0.5]", "f": "{}"}


def test_thin_keeps_means_and_extremes() -> None:
    y = [float(v) for v in range(1000)]
    y[500] = 9e9
    where, mean, low, high = thin(list(range(1000)), y, 100)
    assert len(where) == len(mean) == 100
    assert mean[0] == pytest.approx(4.5)
    assert (low[0], high[0]) == (0, 9)
    assert max(v for v in high if v is not None) == 9e9
    assert where[-1] == 999
    assert thin([1, 2], [None, 3.0])[1] == [None, 3.0]
    assert thin([1, 2, 3, 4], [None, None, 1.0, None], 2)[1] == [None, 1.0]


def coordinates(d: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", d)]


def test_a_line_passes_through_its_points_and_breaks_at_gaps() -> None:
    chart = Chart((Line("a", [0, 1, 2, 3, 4], [0.0, 1.0, None, 1.0, 0.0]),), "x", "y")
    found = str(draw(chart, 400, 200))
    d = re.search(r'<path d="([^"]+)" class="line"/>', found).group(1)
    assert d.count("M") == 2
    points = coordinates(d)
    assert len(points) == 4
    steps = np.diff([p[0] for p in points])
    assert steps[1] == pytest.approx(2 * steps[0], abs=0.31)
    assert points[0][1] == points[3][1] > points[1][1] == points[2][1]


def test_a_single_point_is_seen_and_titled() -> None:
    found = str(draw(Chart((Line("<a>", [10], [0.5]),), "labels", "accuracy", x_log=True), 400, 200))
    assert 'class="dot"' in found
    assert "<title>&lt;a&gt;, 10: 0.500</title>" in found


def test_hover_data_says_what_is_drawn() -> None:
    chart = curves.label_chart(validate({"label_efficiency": samples.label_efficiency()})["label_efficiency"])
    found = str(draw(chart, 700, 400))
    raw = re.search(r'data-chart="([^"]+)"', found).group(1)
    data = json.loads(raw.replace("&#34;", '"'))
    assert [name for name, _ in data["names"]] == ["raw pixels", "untrained encoder", "this encoder"]
    assert [point[1] for point in data["points"]][:2] == ["1 label per class", "2 labels per class"]
    assert data["points"][3][2][2][2] == "0.810 (0.791 to 0.829)"
    assert "this encoder: 0.490 at 1, 0.900 at 100" in describe(chart)


def test_label_curves_take_their_roles_from_their_names() -> None:
    assert [curves.role_of({"name": n}) for n in ("Raw pixels", "untrained encoder", "DCL", "")] == [
        "raw",
        "random",
        "this",
        "this",
    ]
    assert curves.role_of({"name": "random forest features", "role": "other"}) == "other"


def test_spectrum_is_relative_sorted_and_positive() -> None:
    chart = curves.spectrum_chart({"this": [1.0, 4.0, 2.0, 0.0, None]})
    assert chart.lines[0].y == [1.0, 0.5, 0.25, None]
    assert curves.spectrum_chart({"this": [0.0, 0.0]}) is None


def test_effective_rank_has_its_limits() -> None:
    assert curves.effective_rank([3.0] * 7) == pytest.approx(7, abs=1e-12)
    assert curves.effective_rank([5.0, 0.0, 0.0]) == pytest.approx(1, abs=1e-12)
    p = np.array([0.5, 0.3, 0.2])
    assert curves.effective_rank(list(40 * p)) == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), abs=1e-12)
    assert curves.effective_rank([0.0]) is None
    assert curves.effective_rank(None) is None


def test_map_keeps_one_scale_in_both_directions() -> None:
    plate = plates.map_plate({"xy": [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]], "label": [0, 1, -1], "classes": ["a", "b"]})
    (ax, ay), (bx, by), (cx, cy) = ((p[0], p[1]) for p in plate.data["points"])
    assert ay == by
    assert ax == cx
    assert bx - ax == pytest.approx(ay - cy, abs=0.2)
    assert [entry["name"] for entry in plate.legend] == ["no label", "a", "b"]


def test_map_thins_out_and_says_so() -> None:
    rng = np.random.default_rng(0)
    plate = plates.map_plate({"xy": rng.normal(size=(12_000, 2)).tolist()})
    assert (plate.shown, plate.total) == (4000, 12_000)
    assert plate.data["points"][1][3] == 3
    assert plates.map_plate({"xy": [[None, 1.0]]}) is None


def test_thirty_five_classes_look_different() -> None:
    looks = {(svg.colour_class(svg.kind(i)), svg.shape_of(svg.kind(i))) for i in range(35)}
    assert len(looks) == 35


def test_confusion_matrix_in_numbers_and_words() -> None:
    plate = plates.confusion_plate({"matrix": [[8, 2], [0, 0]], "classes": ["a<b", "c"]})
    assert plate.accuracy == pytest.approx(0.8)
    assert plate.worst == [("a<b", "c", 0.2)]
    assert "a&lt;b taken for c: 20% (2)" in plate.svg
    assert plates.confusion_plate({"matrix": [], "classes": []}) is None
    empty = plates.confusion_plate({"matrix": [[0]], "classes": ["a"]})
    assert (empty.accuracy, empty.total) == (None, 0)


def test_large_confusion_matrix_stays_small() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 9, (200, 200)).tolist()
    plate = plates.confusion_plate({"matrix": matrix, "classes": [f"class {i}" for i in range(200)]})
    assert not plate.small
    assert len(plate.svg) < 1_200_000
    assert str(plate.svg).count("<path") <= 10


def test_windows_share_their_scale_per_channel() -> None:
    windows = [{"channels": [[0.0, 1.0], [5.0, 5.0]]}, {"channels": [[0.0, 10.0], [5.0, None]]}]
    spans = plates.channel_spans(windows)
    assert spans[0][0] <= 0 < 10 <= spans[0][1]
    quiet, lively = (
        np.ptp(
            [
                y
                for _, y in coordinates(
                    re.search(r'<path d="([^"]+)" class="line thin', str(plates.window_plate(w, spans))).group(1)
                )
            ]
        )
        for w in windows
    )
    assert lively == pytest.approx(10 * quiet, abs=1)
    assert plates.window_plate({"channels": []}, []) is None


def test_strip_needs_two_to_compare() -> None:
    assert plates.strip([("this", {"mean": 0.5}), ("raw", None)]) == ""
    found = str(plates.strip([("this", {"mean": 0.5, "low": 0.4, "high": 0.6}), ("raw", {"mean": 0.2})]))
    assert found.count('class="dot"') == 2


def test_attributes_and_text_are_escaped() -> None:
    found = str(svg.tag("text", "<b>&", x=1.0, class_='a" onload="x', missing=None))
    assert found == '<text x="1" class="a&#34; onload=&#34;x">&lt;b&gt;&amp;</text>'


def test_payload_can_not_end_its_script() -> None:
    data = {"a": "</script><script>alert(1)</script>&\u2028", "b": None}
    found = str(plates.payload(data))
    assert not re.search("[<>&\u2028]", found)
    assert json.loads(found) == data
    with pytest.raises(ValueError):
        plates.payload(math.nan)


def staged() -> dict[str, Any]:
    series = {"loss": [3.0, 2.0, 40.0, 30.0], "knn": [[2, 0.4], [4, 0.6]], "terms": {"a": [3.0, 2.0, None, None]}}
    return {"step": [1, 2, 3, 4], "stage": ["pretrain", "pretrain", "gan", "gan"], "series": series}


def test_a_stage_that_only_chooses_has_no_loss_among_the_headline_figures() -> None:
    found = staged()
    found["series"]["lr"] = [0.1, 0.05, None, None]
    assert curves.last_learning(found)[0] == "pretrain"
    assert curves.last_learning(staged())[0] == "gan"  # rates unknown
    page = report.render([{"metrics": found}])
    assert "loss, pretrain" in page
    assert "loss, gan" not in page


def test_every_stage_has_its_own_curves() -> None:
    (first, before), (second, after) = curves.by_stage(staged())
    assert (first, second) == ("pretrain", "gan")
    assert (before["step"], after["step"]) == ([1, 2], [3, 4])
    assert (before["series"]["loss"], after["series"]["loss"]) == ([3.0, 2.0], [40.0, 30.0])
    assert (before["series"]["knn"], after["series"]["knn"]) == ([[2, 0.4]], [[4, 0.6]])
    found = sections.training({"metrics": staged()})
    assert [stage["name"] for stage in found["stages"]] == ["pretrain", "gan"]
    assert [[chart["caption"] for chart in stage["small"]] for stage in found["stages"]] == [["a"], []]
    page = report.render([{"metrics": staged()}])
    assert page.index("Stage pretrain") < page.index("Stage gan")
    alone = {**staged(), "stage": ["pretrain"] * 4}
    assert [name for name, _ in curves.by_stage(alone)] == [""]
    with pytest.raises(UserError, match=r"metrics.stage has 1 values where metrics.step has 4"):
        report.validate({"metrics": {**staged(), "stage": ["a"]}})


def test_losses_of_unlike_stages_are_never_joined() -> None:
    run = report.validate({"title": "a", "metrics": staged()})
    assert report.verdict(run).sentence == "The loss went from 40 to 30 in its last stage, gan."
    loss = next(chart for chart in compare.charts([run, run], ["a", "b"]) if chart["name"] == "loss")
    assert [name in loss["legend"] for name in ("a, pretrain", "a, gan", "b, gan")] == [True] * 3
    assert "loss, gan" in report.render([run])


def test_restored_clips_are_drawn_frame_by_frame() -> None:
    clip = {"name": "street", "restored": [31.0, 30.5, 32.0], "noisy": [28.0, None, 27.0], "flicker": 2.5}
    page = report.render([{"frames": [clip, {"name": "flat", "restored": [], "noisy": []}]}])
    assert "Frame by frame" in page
    assert "street: flicker – before, 2.50 after" in page
    assert "flat" not in page
    chart = curves.frames_chart(clip)
    assert chart is not None
    assert [line.name for line in chart.lines] == ["input", "restored"]
    assert text.direction("flicker") == "low"
    with pytest.raises(UserError, match=r"frames\[0\].noisy has 1 values where frames\[0\].restored has 3"):
        validate({"frames": [clip | {"noisy": [1.0]}]})
