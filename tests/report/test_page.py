from __future__ import annotations

import copy
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from selftaught import report
from selftaught.errors import UserError
from selftaught.report import compare, figures, scores
from selftaught.report.curves import label_chart
from selftaught.report.lines import draw
from selftaught.report.tables import protocol_rows
from tests.report import samples
from tests.report.test_browser import hard_run

VOID = {"meta", "link", "img", "input", "br"}


class Reader(HTMLParser):
    """Collects every attribute and checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


RUNS = {
    "image": lambda: [samples.image_run()],
    "unlabelled": lambda: [samples.unlabelled_run()],
    "restoration": lambda: [samples.restoration_run()],
    "series": lambda: [samples.series_run()],
    "comparison": samples.comparison_runs,
    "hard": lambda: [hard_run()],
    "hard comparison": lambda: [hard_run(), hard_run(), {}],
    "empty": lambda: [{}],
}


@pytest.mark.parametrize("name", RUNS)
def test_the_page_is_well_formed_self_contained_and_small(name: str) -> None:
    page = report.render(RUNS[name]())
    reader = read(page)
    for tag, attribute, value in reader.attributes:
        if attribute in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            assert value.startswith(("data:", "#")), (tag, attribute, value[:60])
        assert not attribute.startswith("on"), (tag, attribute)
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert all(address.startswith('"data:') for address in re.findall(r"url\(([^)]{0,8})", styles))
    assert "@import" not in styles
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|https?://", page)
    assert len(page) < 5_000_000


def test_a_class_named_like_a_script_is_only_text() -> None:
    evil = "<script>alert(1)</script>"
    assert evil not in report.render([hard_run()]).replace('document.title="broken"', "alert(1)")
    scripts = read(report.render([hard_run()])).scripts
    assert scripts == read(report.render([samples.image_run()])).scripts == 2


def test_a_page_says_whether_training_had_labels() -> None:
    """What is true of learning without labels isn't said of a run that had them."""
    run = samples.image_run()
    without, having = report.render([run]), report.render([run | {"labels_seen": True}])
    for said in ("Training saw no label", "what training without labels was worth"):
        assert said in without
        assert said not in having
    assert "what training with labels was worth" in having
    assert "Training learnt from labels" in having


def test_a_minimal_page_says_that_nothing_was_measured() -> None:
    page = report.render([{}])
    assert "Nothing was measured in this run." in page
    assert "<section" not in page


@pytest.mark.parametrize(
    ("change", "heading"),
    [
        ({"metrics": {"step": [], "series": {"loss": []}}}, "Training"),
        ({"metrics": {"step": [1], "series": {"loss": [None]}}}, "Training"),
        ({"label_efficiency": {"x": [], "curves": []}}, "Label efficiency"),
        ({"protocols": []}, "Evaluation"),
        ({"protocols": [{"name": "k-NN", "numbers": {"accuracy": {"mean": None}}}]}, "Evaluation"),
        ({"map": {"xy": []}}, "Embedding map"),
        ({"neighbours": []}, "Nearest neighbours"),
        ({"views": {"rows": [[]]}}, "What the model saw"),
        ({"spectrum": {"this": []}}, "Spectrum"),
        ({"restoration": []}, "Before and after"),
        ({"series": {"windows": []}}, "Windows"),
        ({"series": {"confusion": {"matrix": [], "classes": []}}}, "Confusion matrix"),
        ({"config": {}, "environment": {}, "notes": []}, "How to repeat it"),
    ],
)
def test_an_empty_section_is_left_out(change: dict[str, Any], heading: str) -> None:
    assert f">{heading}</h2>" not in report.render([change])


def test_every_section_of_a_full_run_is_there() -> None:
    page = report.render(
        [
            samples.image_run()
            | {k: v for k, v in samples.restoration_run().items() if k == "restoration"}
            | {"series": samples.series_run()["series"]}
        ]
    )
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    first = ["Label efficiency", "Before and after", "Evaluation", "Embedding map", "Nearest neighbours"]
    second = ["Confusion matrix", "Windows", "What the model saw", "Training", "Spectrum"]
    assert headings == [*first, *second, "Skipped samples", "How to repeat it"]


def test_without_labels_the_page_leads_with_what_can_be_looked_at() -> None:
    page = report.render([samples.unlabelled_run()])
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    assert headings[:4] == ["Nearest neighbours", "Embedding map", "What the model saw", "Evaluation"]
    assert page.index("No sign of collapse") < page.index("<section")
    assert "No gain" not in page
    assert page.count('<p class="whose">untrained encoder</p>') == len(samples.unlabelled_run()["neighbours"])
    assert "class as the query" not in page


def test_labels_to_correct_come_first_and_other_tables_do_not() -> None:
    table = {"title": "Shares", "note": "", "columns": ["a", "b"], "rows": [["x", "y"]], "pictures": None}

    def headings(listing: dict[str, Any]) -> list[str]:
        page = report.render([samples.series_run() | {"listings": [listing]}])
        return re.findall(r"<h2[^>]*>([^<]+)</h2>", page)

    plain = headings(table)
    assert "Tables" in plain[1:]
    first, *others = headings(table | {"classes": ["y", "z"]})
    assert first == "Suspicious labels"
    assert sorted(others) == sorted(heading for heading in plain if heading != "Tables")


def test_protocols_stand_beside_their_baselines() -> None:
    rows = {
        (row.protocol, row.metric): row
        for row in protocol_rows(report.validate({"protocols": samples.protocols()})["protocols"])
    }
    row = rows["Linear probe", "loss"]
    assert [row.text(role) for role in ("raw", "random", "this")] == ["1.742", "1.205", "0.412"]
    assert (row.better, row.best) == ("low", "this")
    assert rows["Retrieval", "mAP"].text("raw") == "not measured"
    assert rows["Collapse", "effective rank"].best is None
    page = report.render(
        [{"protocols": [{"name": "k-NN", "numbers": {"accuracy": {"mean": 0.9, "low": 0.8, "high": 1.0}}}]}]
    )
    assert "Here neither was measured." in page


def test_what_restores_is_no_encoder() -> None:
    score = {"psnr": {"mean": 30.0, "low": 29.0, "high": 31.0}}
    protocols = [{"name": "restoration", "this": {"numbers": score}, "raw": {"numbers": score}}]
    page = report.render([samples.restoration_run() | {"protocols": protocols}])
    part = page[page.index("What was restored, and its input as it was.") :]
    assert '<th scope="col" class="key k-this">restored</th>' in part
    assert "encoder" not in part[: part.index("</section")]


def test_a_mean_is_taken_from_its_values_when_missing() -> None:
    rows = protocol_rows([{"name": "p", "numbers": {"a": {"values": [0.25, 0.75, None]}, "b": {"values": []}}}])
    assert [(row.metric, row.text("this")) for row in rows] == [("a", "0.500")]


def test_better_can_be_told() -> None:
    def column(mean: float) -> dict[str, Any]:
        return {"numbers": {"odd": {"mean": mean}}}

    told = [{"name": "p", "this": column(1.0), "raw": column(2.0), "better": {"odd": "low"}}]
    assert protocol_rows(told)[0].best == "this"
    assert protocol_rows([{**told[0], "better": {"odd": "none"}}])[0].best is None
    assert protocol_rows([{"name": "p", "this": column(1.00001), "raw": column(1.00002)}])[0].best is None


def test_results_of_the_evaluation_room_fit_as_they_come() -> None:
    from selftaught import evaluation

    rng = np.random.default_rng(0)
    label = np.arange(120) % 3
    good = np.eye(3)[label] + 0.4 * rng.normal(size=(120, 3))
    noise = rng.normal(size=(120, 3))
    clean = [samples.photo("coffee")[:48, 48 * i : 48 * i + 48] for i in range(3)]
    noisy = [np.clip(c + 25 * rng.normal(size=c.shape), 0, 255).astype(np.uint8) for c in clean]
    columns = {"this": good, "random": noise}
    knn = {k: evaluation.knn(x[:60], label[:60], x[60:], label[60:], k=5).to_dict() for k, x in columns.items()}
    found = [
        {"name": "k-NN", **knn},
        {"name": "diagnostics", "this": evaluation.diagnostics(good).to_dict()},
        evaluation.restoration(clean, clean, noisy=noisy, data_range=255).to_dict(),
    ]
    run = report.validate({"protocols": found})
    rows = {(row.protocol, row.metric): row for row in protocol_rows(run["protocols"])}
    assert rows["k-NN", "accuracy"].best == "this"
    assert rows["diagnostics", "effective_rank"].label == "effective rank"
    psnr = rows["restoration", "psnr"]
    assert psnr.best == "this"
    assert 18 < psnr.cells["raw"]["mean"] < 24
    assert ("restoration", "psnr_input") not in rows
    verdict = report.verdict(run)
    assert verdict.sentence.startswith("k-NN: accuracy ")
    assert verdict.tone == "gain"


def test_skipped_samples_are_counted_by_reason() -> None:
    page = report.render([samples.image_run()])
    assert "3 samples of 9,603 (0.03%) could not be used." in page
    assert "<b>2</b> truncated" in page
    assert "Every sample could be used." in report.render([{"skipped": []}])
    many = [{"name": f"{i}.jpg", "reason": "empty file"} for i in range(950)]
    page = report.render([{"skipped": many}])
    assert "750 more are in the run&#39;s skipped.csv." in page or "750 more are in the run's skipped.csv." in page


def test_a_name_that_is_not_utf8_is_shown(tmp_path: Path) -> None:
    run = {"skipped": [{"name": "caf\udce9.png", "reason": "broken"}]}
    assert "caf\ufffd.png" in report.write(tmp_path / "page.html", [run]).read_text(encoding="utf-8")


def test_made_up_data_is_named() -> None:
    assert "Made-up data." in report.render([{"source": {"name": "x", "generated": True}}])
    assert "Made-up data." not in report.render([{"source": {"name": "x"}}])


def test_write_makes_folders_replaces_whole_files_and_leaves_no_scraps(tmp_path: Path) -> None:
    target = report.write(tmp_path / "a" / "b.html", [{}])
    assert target == tmp_path / "a" / "b.html"
    before = target.read_text("utf-8")
    with pytest.raises(UserError):
        report.write(target, [{"title": 3}])
    assert target.read_text("utf-8") == before
    assert report.write(tmp_path, [{"title": "é"}]) == tmp_path / "report.html"
    assert '<h1 class="title">é</h1>' in (tmp_path / "report.html").read_text("utf-8")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b.html", "report.html"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_of_the_file_follows_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        target = report.write(tmp_path / "page.html", [{}])
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == mode


def test_the_same_run_gives_the_same_page() -> None:
    run = samples.series_run()
    assert report.render([run]) == report.render([run])


def test_comparison_shows_differences_only() -> None:
    rows, alike = compare.differences([report.validate(run) for run in samples.comparison_runs()])
    assert [row["name"] for row in rows] == ["method", "method.temperature", "batch_size"]
    assert [cell["off"] for cell in rows[2]["cells"]] == [False, True, False]
    assert [cell["off"] for cell in rows[0]["cells"]] == [True, True, True]
    assert alike == 18
    assert compare.differences([{"config": {"a": 1}}, {"config": {}}])[0][0]["cells"][1]["text"] == "–"


def test_comparison_marks_the_best_and_what_is_level_with_it() -> None:
    groups = {
        group["name"]: group["rows"]
        for group in compare.table([report.validate(run) for run in samples.comparison_runs()])
    }
    assert list(groups) == ["Label efficiency", "k-NN", "Linear probe", "Retrieval", "Collapse", "Training"]
    ten = next(row for row in groups["Label efficiency"] if row["name"] == "10 labels per class")
    assert [cell["mark"] for cell in ten["cells"]] == ["best", "level", ""]
    assert ten["cells"][0]["refs"] == "untrained 0.460 · raw 0.390"
    assert [row["name"] for row in groups["Label efficiency"]][-1] == "100 labels per class"
    assert all(cell["mark"] == "" for row in groups["Training"] if row["name"] == "loss, last" for cell in row["cells"])


def test_runs_of_one_name_are_told_apart_and_other_data_is_a_warning() -> None:
    runs = [{"title": "a"}, {"title": "a"}, {"method": "dcl"}, {}]
    assert compare.unique_titles(runs) == ["a", "a (2)", "dcl", "run 4"]
    assert compare.sources_differ([{"source": {"name": "x"}}, {"source": {"name": "y"}}])
    assert not compare.sources_differ(
        [{"source": {"name": "x", "fingerprint": "1"}}, {"source": {"name": "y", "fingerprint": "1"}}]
    )
    page = report.render([{"source": {"name": "x"}}, {"source": {"name": "y"}}])
    assert "Different data." in page


def test_runs_of_different_length_carry_a_warning() -> None:
    runs = [{"title": name, "metrics": {"step": [1, last]}} for name, last in (("a", 1000), ("b", 1000), ("c", 250))]
    assert compare.steps_differ(runs) == [("a", 1000), ("b", 1000), ("c", 250)]
    assert compare.steps_differ([*runs[:2], {}]) == []
    page = report.render(runs)
    assert "Different lengths of training." in page
    assert "Steps: a 1,000; b 1,000; c 250." in page
    assert "Different lengths of training." not in report.render(runs[:2])


def claim(rows: int = 2) -> figures.Claim:
    rng = np.random.default_rng(0)
    made: list[figures.ClaimRow] = []
    for i in range(rows):
        base = 0.7 + 0.02 * rng.normal(size=5)
        ours = base + 0.03 * (i == 0)
        difference = {"mean": 0.03 * (i == 0), "low": 0.02 - 0.03 * i, "high": 0.04 - 0.03 * i}
        row = {
            "setting": f"batch {32 << i}",
            "method": {"name": "DCL", "values": ours},
            "baseline": {"name": "InfoNCE", "values": base},
        }
        made.append({**row, "difference": difference})  # type: ignore[typeddict-item]
    return {"title": "DCL against InfoNCE", "metric": "accuracy", "rows": made}


def test_figures_repeat_and_are_drawn_like_the_page(tmp_path: Path) -> None:
    for k, make in enumerate(
        (
            lambda p: figures.claims_figure(claim(), p),
            lambda p: figures.label_efficiency_figure(samples.label_efficiency(), p),
        )
    ):
        first, second = make(tmp_path / f"{k}a.svg"), make(tmp_path / "deep" / f"{k}b.svg")
        assert first.read_bytes() == second.read_bytes()
        root = ElementTree.fromstring(first.read_text("utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme:dark" in "".join(root.itertext())
        assert 'class="ground"' in first.read_text("utf-8")
    drawn = str(
        draw(
            label_chart(report.validate({"label_efficiency": samples.label_efficiency()})["label_efficiency"]), 700, 400
        )
    )
    assert drawn in (tmp_path / "1a.svg").read_text("utf-8")


def test_a_difference_that_may_be_nothing_is_hollow(tmp_path: Path) -> None:
    def marks(low: float | None, high: float | None) -> tuple[bool, bool]:
        one = claim(1)
        one["rows"][0]["difference"] = {"mean": 0.03, "low": low, "high": high}
        text = figures.claims_figure(one, tmp_path / "a.svg").read_text("utf-8")
        return 'class="hollow"' in text, 'class="interval"' in text

    assert marks(0.02, 0.04) == (False, True)
    assert marks(-0.02, 0.04) == (True, True)
    assert marks(0.03, 0.03) == (True, False)
    assert marks(None, None) == (True, False)


def test_figures_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"claim.rows is empty"):
        figures.claims_figure({"rows": []}, tmp_path / "a.svg")
    uneven = claim(1)
    uneven["rows"][0]["method"]["values"] = [0.5]
    with pytest.raises(UserError, match=r"claim.rows\[0\] has 1 and 5 values"):
        figures.claims_figure(uneven, tmp_path / "a.svg")
    with pytest.raises(UserError, match=r"should end in .svg"):
        figures.claims_figure(claim(), tmp_path / "a.gif")
    with pytest.raises(UserError, match="no curve"):
        figures.label_efficiency_figure({"x": [1], "curves": []}, tmp_path / "a.svg")


def test_report_stands_alone_without_heavy_imports() -> None:
    import subprocess
    import sys

    heavy = ("torch", "matplotlib", "lightning", "cv2")
    code = f"import sys, selftaught.report; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("name", ["image", "unlabelled", "comparison"])
def test_an_untrained_encoder_is_called_that_everywhere(name: str) -> None:
    body = re.sub(r"<(script|style)\b.*?</\1>", "", report.render(RUNS[name]()), flags=re.DOTALL)
    shown = re.sub(r"<[^>]*>", " ", body) + " ".join(re.findall(r'aria-label="([^"]*)"', body))
    assert "untrained" in shown
    assert "random" not in shown.replace("drawn at random", "")


def test_clips_play_as_strips_without_a_player() -> None:
    run = copy.deepcopy(samples.image_run())
    for row in run["neighbours"]:
        for one in (row, *row["hits"]):
            one["frames"] = 4
    page = report.render([run])
    assert page.count('class="film" style="--frames:4"') > 6
    assert "<video" not in page
    assert 'class="film"' not in report.render([samples.image_run()])


def test_the_best_of_a_row_is_bold_in_the_table_of_labels_too():
    """As in every other table: not this encoder's, where an untrained one is better, and nobody's in a tie."""
    means = {"this encoder": [0.7, 0.8, 0.9], "untrained encoder": [0.75, 0.8, 0.5]}
    section = {"x": [1, 5, 10], "curves": [{"name": name, "mean": mean} for name, mean in means.items()]}
    rows = scores.label_efficiency({"label_efficiency": section})["rows"]
    assert [[cell["text"] for cell in row["cells"] if cell["best"]] for row in rows] == [["0.750"], [], ["0.900"]]


def test_only_pictures_that_hide_something_speak_of_hidden_parts():
    """A depth map is what the model made of a frame, not a view after cropping."""
    shown = report.images.encode(np.zeros((8, 8, 3), np.uint8))
    run = {"title": "depth", "pictures": {"columns": ["frame", "depth"], "rows": [[shown, shown]]}}
    page = report.render([run])
    text = re.sub("<[^>]+>", " ", page)
    assert "What it was given, and what it made of it" in text
    assert "Hidden parts" not in text
    assert "after cropping" not in text


def test_the_data_are_told_as_they_are_read() -> None:
    source = {"name": "reviews.csv", "train": 640, "classes": ["neg", "pos"], "channels": 1}
    assert "reviews.csv · 640 to train · 2 classes<" in report.render([{"source": source | {"modality": "text"}}])
    beside = {"beside": {"volumes": {"name": "scans/", "samples": 8}}, "modality": "image"}
    page = report.render([{"source": source | beside}])
    assert "reviews.csv · 640 to train · 2 classes · 1 channel · volumes: scans/, 8<" in page
