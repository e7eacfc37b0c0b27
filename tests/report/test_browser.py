"""The report in a real browser, opened from its file."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selftaught import report
from selftaught.data.corrections import read_corrections
from selftaught.report import images
from selftaught.report.curated import write_selection
from tests.report import samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("pages")
    report.write(where / "image.html", [samples.image_run()])
    report.write(where / "unlabelled.html", [samples.unlabelled_run()])
    report.write(where / "restoration.html", [samples.restoration_run()])
    report.write(where / "series.html", [samples.series_run()])
    report.write(where / "comparison.html", samples.comparison_runs())
    report.write(where / "hard.html", [hard_run()])
    report.write(where / "empty.html", [{}])
    return where


def hard_run() -> dict[str, Any]:
    """Long unbroken names, 200 classes, names that are markup, gaps everywhere."""
    rng = np.random.default_rng(5)
    evil = '<script>document.title="broken"</script>'
    classes = [evil, "x" * 120, *(f"class number {i} with quite a long name" for i in range(198))]
    label = rng.integers(-1, 200, 900)
    xy = rng.normal(size=(900, 2))
    xy[::50] = np.nan
    matrix = np.diag(rng.integers(5, 20, 200)) + (rng.random((200, 200)) < 0.02)
    long = "averylongnamewithoutanyspace" * 6
    return {
        "title": long,
        "method_title": evil,
        "source": {"name": f"/{long}/{long}", "classes": classes},
        "command": f"selftaught train {long} --data '{evil}'",
        "config": {long: long, "nested": {"none": None, "list": [1, 2.5, True], evil: evil}},
        "metrics": {
            "step": [1, 2, 3],
            "series": {
                "loss": [math.nan, 2.0, math.inf],
                "terms": {evil: [1, None, 3], "empty": [None] * 3},
                "knn": [],
            },
        },
        "label_efficiency": {
            "x": [10],
            "curves": [{"name": evil, "mean": [0.5]}, {"name": "random", "mean": [math.nan]}],
        },
        "protocols": [{"name": long, "numbers": {long: {"mean": 0.3, "low": None, "high": None}}}],
        "map": {"xy": xy, "label": label, "classes": classes, "names": [evil] * 900},
        "neighbours": [{"query": images.encode(samples.photo("cat")[:64, :64]), "label": evil, "hits": []}],
        "confusion": {"matrix": matrix, "classes": classes},
        "series": {"windows": [{"channels": rng.normal(size=(20, 30)), "label": evil, "name": long}, {"channels": []}]},
        "spectrum": {"this": [1.0, 0.0, math.nan]},
        "skipped": [{"name": long, "reason": evil}],
        "notes": [evil, long],
    }


PAGES = ("image", "unlabelled", "restoration", "series", "comparison", "hard", "empty")


NAMELESS = """[...document.querySelectorAll('button, input, a, svg[role=img], [role=region], img')].filter(e =>
    !(e.getAttribute('aria-label') || e.textContent.trim() || e.getAttribute('alt') || e.closest('label'))).length"""
LETTERS = """[...document.querySelectorAll('svg.chart')]
    .filter(s => s.getClientRects().length && s.querySelector('text'))
    .map(s => 12 * s.getScreenCTM().a)"""


@pytest.mark.parametrize("name", PAGES)
def test_opens_clean_fits_and_is_in_order(visit: Any, folder: Path, name: str) -> None:
    with visit(folder / f"{name}.html", 1600) as seen:
        page = seen.page
        page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
        for width in (1600, 900, 400):
            page.set_viewport_size({"width": width, "height": 900})
            assert seen.overflow() == 0
            letters = page.evaluate(LETTERS)
            assert all(9 <= size <= 18.5 for size in letters), (width, min(letters), max(letters))
        assert page.title().endswith("selftaught report")
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))
        assert set(page.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash.slice(1))")) <= set(
            ids
        )
        assert page.evaluate(NAMELESS) == 0
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5')].map(h => +h.tagName[1])")
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert seen.complaints == []
        assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []
        assert sum(url.startswith("file:") for url in seen.requests) == 1


def test_pointing_at_the_map_shows_the_right_thumbnail(visit: Any, folder: Path) -> None:
    with visit(folder / "image.html") as seen:
        page = seen.page
        page.locator("svg.map").scroll_into_view_if_needed()
        spot = page.evaluate(
            """() => { const d = JSON.parse(document.getElementById('r0-map-data').textContent);
            const p = d.points[37], m = document.querySelector('svg.map').getScreenCTM();
            const q = new DOMPoint(p[0], p[1]).matrixTransform(m);
            return {x: q.x, y: q.y, label: d.classes[p[2]], name: d.names[37], tile: p[3], columns: d.columns}; }"""
        )
        assert page.locator("#tip").is_hidden()
        page.mouse.move(spot["x"], spot["y"])
        tip = page.locator("#tip")
        assert tip.is_visible()
        thumb = tip.locator(".thumb")
        style = thumb.evaluate(
            "e => { const s = getComputedStyle(e); return [s.backgroundImage.slice(0, 20), s.backgroundPosition]; }"
        )
        assert style[0].startswith('url("data:image/jpeg')
        x, y = (float(v.removesuffix("px")) for v in style[1].split())
        assert (-x / 112, -y / 112) == (spot["tile"] % spot["columns"], spot["tile"] // spot["columns"])
        assert tip.locator(".tip-head").text_content() == spot["label"]
        page.mouse.move(3, 3)
        assert tip.is_hidden()


def test_map_by_keyboard_and_touch(visit: Any, folder: Path) -> None:
    with visit(folder / "image.html", has_touch=True) as seen:
        page = seen.page
        page.locator("svg.map").focus()
        page.keyboard.press("ArrowRight")
        first = page.locator("#live").text_content()
        page.keyboard.press("ArrowRight")
        second = page.locator("#live").text_content()
        assert first != second
        assert second.split(",")[0] in samples.PHOTOS
        assert page.locator("#tip .thumb").is_visible()
        page.keyboard.press("Escape")
        assert page.locator("#tip").is_hidden()
        spot = page.evaluate(
            """() => { const d = JSON.parse(document.getElementById('r0-map-data').textContent);
            const m = document.querySelector('svg.map').getScreenCTM();
            const q = new DOMPoint(d.points[5][0], d.points[5][1]).matrixTransform(m); return [q.x, q.y]; }"""
        )
        page.touchscreen.tap(spot[0] + 4, spot[1])
        assert page.locator("#tip .thumb").is_visible()


def test_legend_brings_a_class_forward(visit: Any, folder: Path) -> None:
    with visit(folder / "image.html") as seen:
        page = seen.page
        button = page.locator(".classes button").nth(2)
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        own = button.get_attribute("data-class")
        bright = page.evaluate("[...document.querySelectorAll('path.points:not(.faded)')].map(p => p.dataset.class)")
        assert bright == [own]
        button.click()
        page.mouse.move(2, 2)
        button.blur()
        assert page.locator("path.points.faded").count() == 0


def test_legend_of_200_classes_can_be_searched(visit: Any, folder: Path) -> None:
    with visit(folder / "hard.html") as seen:
        page = seen.page
        page.locator(".find input").fill("number 77 ")
        shown = page.locator(".classes li:not([hidden])")
        assert shown.count() == 1
        assert "class number 77" in shown.text_content()


def test_slider_by_keyboard_and_by_drag(visit: Any, folder: Path) -> None:
    with visit(folder / "restoration.html") as seen:
        page = seen.page
        slider, handle = page.locator(".slider").first, page.locator(".slider input").first
        cut = "e => parseFloat(getComputedStyle(e).getPropertyValue('--cut'))"
        assert slider.evaluate(cut) == 50
        handle.focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert slider.evaluate(cut) == 53
        assert handle.get_attribute("aria-valuetext") == "53 % input, 47 % restored"
        page.keyboard.press("Home")
        assert slider.evaluate(cut) == 0
        box = slider.bounding_box()
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 30, steps=4)
        page.mouse.up()
        assert slider.evaluate(cut) == pytest.approx(80, abs=1)
        clip = slider.locator(".before").evaluate("e => getComputedStyle(e).clipPath")
        assert clip.startswith("inset(0px calc(20%") or clip.startswith("inset(0px 20%")


def test_slider_covers_the_picture_pixel_by_pixel(visit: Any, folder: Path) -> None:
    with visit(folder / "restoration.html") as seen:
        boxes = [seen.page.locator(s).first.bounding_box() for s in (".slider", ".slider .before", ".slider img")]
        assert boxes[0] == boxes[1] == boxes[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_follows_the_system_and_the_button(visit: Any, folder: Path, scheme: str) -> None:
    with visit(folder / "image.html", color_scheme=scheme) as seen:
        page = seen.page
        colour = "getComputedStyle(document.body).backgroundColor"
        level = f"{colour}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
        dark = page.evaluate(level) < 200
        assert dark == (scheme == "dark")
        button = page.locator("#theme")
        assert button.get_attribute("aria-pressed") == str(dark).lower()
        button.click()
        assert (page.evaluate(level) < 200) != dark
        check_contrast(page)
        assert button.get_attribute("aria-pressed") == str(not dark).lower()
        page.emulate_media(media="print")
        assert page.evaluate(level) > 700


def check_contrast(page: Any) -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what a chart is made of."""
    names = ["page", "ink", "soft", "good", "bad", "this", "random", "raw", *(f"c{i}" for i in range(7))]
    style = "name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()"
    colours = {name: page.evaluate(style, name) for name in names}
    for name in names[1:]:
        least = 4.5 if name in ("ink", "soft", "good", "bad", "this", "random") else 3.0
        assert contrast(colours[name], colours["page"]) >= least, name


def contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_crosshair_reads_the_values(visit: Any, folder: Path) -> None:
    with visit(folder / "image.html") as seen:
        page = seen.page
        chart = page.locator("#r0-label_efficiency .wide svg")
        chart.focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        said = page.locator("#live").text_content()
        assert said.startswith("10 labels per class: ")
        assert "this encoder 0.810 (0.791 to 0.829)" in said
        assert "untrained encoder 0.460 (0.441 to 0.479)" in said
        box = chart.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 60)
        assert page.locator("#tip .tip-head").text_content() == "100 labels per class"


def test_comparison_opens_each_run(visit: Any, folder: Path) -> None:
    with visit(folder / "comparison.html") as seen:
        page = seen.page
        assert page.locator("details.run").count() == 3
        assert page.locator("#r0-map").is_hidden()
        page.locator("details.run summary").first.click()
        assert page.locator("#r0-map svg.map").is_visible()
        row = page.locator("#numbers tr", has_text="10 labels per class")
        assert [row.locator("td").nth(i).locator(".mark").all_text_contents() for i in range(3)] == [
            ["best"],
            ["level"],
            [],
        ]
        options = page.locator("#options tbody th").all_text_contents()
        assert options == ["method", "method.temperature", "batch_size"]


def test_names_that_are_markup_stay_text(visit: Any, folder: Path) -> None:
    with visit(folder / "hard.html") as seen:
        assert "broken" not in seen.page.title()
        assert seen.page.locator("#r0-recipe code", has_text="<script>").count() > 0
        seen.page.locator("svg.map").focus()
        seen.page.keyboard.press("ArrowRight")
        assert "<script>" in seen.page.locator("#tip .tip-name").text_content()
        assert seen.page.locator("#tip script").count() == 0


@pytest.mark.parametrize("width", [1024, 1366, 1536, 1920])
def test_the_label_table_is_whole_with_four_curves(visit: Any, tmp_path: Path, width: int) -> None:
    section = samples.label_efficiency()
    other = {"name": "channel means and deviations", "role": "other"}
    other |= {k: section["curves"][0][k] for k in ("mean", "low", "high")}
    curves = [*section["curves"], other]
    path = report.write(tmp_path / "page.html", [{"label_efficiency": {**section, "curves": curves}}])
    with visit(path, width) as seen:
        box = seen.page.locator(".s-label_efficiency .scroll")
        heads = box.locator("thead th").all_text_contents()
        assert heads[:2] == ["Labels", "this encoder"]
        assert len(heads) == 5
        assert box.evaluate("e => e.scrollWidth - e.clientWidth") == 0


def test_the_map_zooms_finds_names_and_is_reached_from_neighbours(visit: Any, folder: Path) -> None:
    with visit(folder / "unlabelled.html") as seen:
        page = seen.page
        whole, marks = page.locator("svg.map").get_attribute("viewBox"), page.locator("path.points").get_attribute("d")
        size = "document.querySelector('path.points').getBoundingClientRect().width"
        wide = page.evaluate(size)
        page.locator("[data-zoom='2']").click()
        assert page.locator("svg.map").get_attribute("viewBox") == "190 155 380 310"
        assert page.evaluate(size) == pytest.approx(2 * wide, rel=0.02)
        assert page.locator("path.points").get_attribute("d").count("M") == marks.count("M")
        page.locator("[data-zoom='0']").click()
        assert page.locator("svg.map").get_attribute("viewBox") == whole
        assert page.locator("[data-zoom='0']").is_disabled()
        name = samples.unlabelled_run()["map"]["names"][17]
        page.locator(".find-sample input").fill(name[-8:])
        assert page.locator(".find-sample output").text_content() == "1 of 1"
        assert page.locator("#tip .tip-name").text_content() == name
        page.locator(".find-sample input").fill("no such name")
        assert page.locator(".find-sample output").text_content() == "none"
        assert page.locator("#tip").is_hidden()
        page.locator(".hits [data-point='3']").first.click()
        assert page.locator("#tip .tip-name").text_content() == samples.unlabelled_run()["map"]["names"][3]
        assert page.locator("svg.map").evaluate(
            "e => { const b = e.getBoundingClientRect(); return b.top < innerHeight && b.bottom > 0; }"
        )
        assert seen.complaints == []


@pytest.mark.parametrize("width", [390, 760])
def test_neighbour_tiles_fill_their_rows_on_narrow_screens(visit: Any, tmp_path: Path, width: int) -> None:
    run = samples.unlabelled_run()
    for row in run["neighbours"]:
        row["hits"] = [*row["hits"], row["hits"][0]]
        row["untrained"] = [*row["untrained"], row["untrained"][0]]
    with visit(report.write(tmp_path / "page.html", [run]), width) as seen:
        tops = seen.page.locator(".hits").first.locator("figure").evaluate_all("all => all.map(f => f.offsetTop)")
        counts = [tops.count(top) for top in sorted(set(tops))]
        assert len(tops) == 8
        assert len(set(counts)) == 1
        assert seen.overflow() == 0


@pytest.mark.parametrize("width", [390, 1200])
def test_the_pictures_of_clusters_stand_below_their_titles(visit: Any, tmp_path: Path, width: int) -> None:
    """In rows of their own, that cover nothing else."""
    picture = images.encode(samples.photo("cat")[:48, :48])
    thumbs = [{"name": f"{k}.png", "picture": picture} for k in range(4)]
    row = {"title": "Cluster", "size": 30, "count": 4, "kept": thumbs, "dropped": thumbs}
    page: Any = {
        "title": "Kept", "sentence": "Some.", "note": "", "generated": False, "facts": [], "tiles": [], "reasons": [],
        "duplicates": [], "crowded": [row, row], "rare": [row], "command": "selftaught train dino",
    }  # fmt: skip
    with visit(write_selection(tmp_path / "page.html", page), width) as seen:
        places = seen.page.locator(".clusters li").evaluate_all(
            """all => all.map(li => {
                const parts = [...li.querySelectorAll("p, figure, img")].map(e => e.getBoundingClientRect());
                const inner = li.getBoundingClientRect();
                return [inner.top, inner.bottom, Math.max(...parts.map(p => p.bottom)), inner.left, parts[1].left];
            })"""
        )
        assert len(places) == 3
        for (top, _, _, left, first), before in zip(places, [None, *places], strict=False):
            assert first - left < 5
            assert before is None or top >= before[2]
        assert all(lowest <= bottom + 1 for _, bottom, lowest, _, _ in places)
        assert seen.overflow() == 0


def suspects() -> dict[str, Any]:
    """Names that a table has to quote, that a spreadsheet would run, that are no UTF-8 or no text of one line."""
    names = ['a,"b".png', "=1+1", "-5", "bad\udcff\udc80.png", "zwei\nZeilen", "plain ❄.png"]
    picture = images.encode(samples.photo("cat")[:64, :64])
    return {
        "title": "Labels to look at",
        "columns": ["name", "label", "weight", "rank"],
        "rows": [[name, ("cat", "dog, small")[k % 2], k / 10, 1000 + k] for k, name in enumerate(names)],
        "pictures": [picture] * len(names),
        "classes": ["cat", "dog, small", "Käfer"],
    }


def test_a_sentence_in_a_table_has_room(visit: Any, tmp_path: Path) -> None:
    """Names and labels leave a text the width that it needs to be read."""
    said = "an awful film, and yet one that I would see again on a rainy day"
    rows = [[f"{k:05d}", "negative", 0.01 * k, said] for k in range(3)]
    listing = {"title": "Labels", "columns": ["name", "label", "weight", "text"], "rows": rows}
    listing["classes"] = ["negative", "positive"]
    with visit(report.write(tmp_path / "page.html", [{"title": "x", "listings": [listing]}]), 1200) as seen:
        row = seen.page.locator(".sortable tbody tr").first
        assert row.locator("td").last.evaluate("e => e.getBoundingClientRect().width") > 300
        assert seen.overflow() == 0


def test_labels_are_corrected_in_the_page_and_read_back(visit: Any, tmp_path: Path) -> None:
    listing = suspects()
    names = [row[0] for row in listing["rows"]]
    with visit(report.write(tmp_path / "page.html", [{"title": "x", "listings": [listing]}])) as seen:
        page = seen.page
        table, save, told = (
            page.locator(f".{part}") for part in ("sortable", "corrections button", "corrections output")
        )
        assert save.is_disabled()
        assert table.locator("thead .sort").all_text_contents() == ["name", "label", "corrected", "weight", "rank"]
        selects = table.locator("select")
        given = {0: "Käfer", 1: "-", 2: "cat", 3: "dog, small", 4: "Käfer"}
        for k, label in given.items():
            selects.nth(k).select_option(label)
        selects.nth(5).select_option("cat")
        selects.nth(5).select_option("")
        assert told.text_content() == "4 corrected, 1 to be left out"
        for _ in range(2):
            table.locator("thead .sort", has_text="weight").click()
        first = table.locator("tbody tr").first
        assert "❄" in first.text_content()
        assert first.locator("td").last.text_content() == "1,005"
        assert table.locator("tbody tr").last.locator("select").input_value() == "Käfer"
        table.locator("thead .sort", has_text="corrected").click()
        assert first.locator("select").input_value() == ""
        with page.expect_download() as download:
            save.click()
        assert download.value.suggested_filename == "corrections.csv"
        download.value.save_as(tmp_path / "corrections.csv")
        assert seen.complaints == []
    assert read_corrections(tmp_path / "corrections.csv") == {names[k]: label for k, label in given.items()}
    assert (tmp_path / "corrections.csv").read_bytes().splitlines()[0] == b"name,label,corrected"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_of_suspects_fits_a_telephone_and_can_be_read(visit: Any, tmp_path: Path, scheme: str) -> None:
    path = report.write(tmp_path / "page.html", [{"title": "x", "listings": [suspects()]}])
    with visit(path, 390, color_scheme=scheme) as seen:
        assert seen.overflow() == 0
        colours = """e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor].map(
            c => "#" + c.match(/\\d+/g).map(n => (+n).toString(16).padStart(2, "0")).join(""))"""
        ink, ground = seen.page.locator(".sortable select").first.evaluate(colours)
        assert contrast(ink, ground) > 4.5
