"""Evaluations on several sources stand beside one another, each under the name of its data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import selftaught
from selftaught import UserError, evaluation, methods
from selftaught.cli import main
from selftaught.data import open_source
from selftaught.run import evaluations
from selftaught.run.evaluating import _second_view
from selftaught.run.layout import Layout
from tests.conftest import TINY, write_photos


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unlabelled images to train on, and two labelled folders of the same name."""
    root = tmp_path_factory.mktemp("data")
    write_photos(root / "plain", count=40, classes=1)
    write_photos(root / "a/labelled", count=40)
    write_photos(root / "b/labelled", count=30, classes=3)
    return root


@pytest.fixture(scope="module")
def run(folders: Path) -> selftaught.Run:
    return selftaught.train("simclr", str(folders / "plain"), out=str(folders / "run"), augment="small", **TINY)


def test_each_is_kept_under_its_name_and_the_page_says_which(run, folders: Path) -> None:
    own = run.evaluate(protocols=["diagnostics"])
    first = run.evaluate(str(folders / "a/labelled"), protocols=["knn"])
    second = run.evaluate(folders / "b/labelled", protocols=["knn", "linear"])
    made = evaluations.all_evaluations(run.layout)
    assert [one.own for one in made] == [True, False, False]
    assert made[1].name == "labelled/"
    assert made[2].name == str(folders / "b/labelled")
    stored = [one.numbers() for one in made]
    assert [list(numbers) for numbers in stored] == [["diagnostics"], ["knn"], ["knn", "linear"]]
    for found, numbers in zip((first, second), stored[1:], strict=True):
        assert numbers["knn"]["this"]["numbers"]["accuracy"]["mean"] == found["knn"]["this"]["accuracy"].mean
    assert own["diagnostics"]["this"].name == "diagnostics"
    page = run.report().read_text()
    title = re.search(r"<title>(.*?)</title>", page, re.DOTALL).group(1)
    assert "plain/" in title
    judged = title.partition(" · ")[0].rpartition(", judged on ")[2]
    assert judged.split(" and ") == [str(folders / "b/labelled"), "labelled/"]
    assert "knn on labelled/" in page
    assert "diagnostics on plain/" in page
    assert "class2" in page  # the map's legend has the judged source's classes


def test_the_runs_own_data_by_any_name_is_its_own(run, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, own = Layout(run.path), run.config["settings"]["data"]
    monkeypatch.chdir(folders)
    for data in (None, own, "plain", "./plain/", folders / "plain"):
        assert evaluations.evaluation_on(layout, own, data).own
    other = evaluations.evaluation_on(layout, own, "a/labelled")
    assert other.folder == evaluations.evaluation_on(layout, own, folders / "a/labelled").folder
    images = np.zeros((4, 8, 8, 3), np.uint8)
    assert (
        evaluations.evaluation_on(layout, own, images).folder
        != evaluations.evaluation_on(layout, own, images + 1).folder
    )


def test_a_second_evaluation_adds_to_the_first(run, folders: Path) -> None:
    data = str(folders / "a/labelled")
    run.evaluate(data, protocols=["knn"], baselines=False)
    run.layout.report.unlink(missing_ok=True)
    run.evaluate(data, protocols=["retrieval"], baselines=False, report=True)
    assert "retrieval" in run.layout.report.read_text()
    place = evaluations.evaluation_on(run.layout, run.config["settings"]["data"], data)
    assert {"knn", "retrieval"} <= set(place.numbers())


def test_a_damaged_file_is_named(run, folders: Path, tmp_path: Path) -> None:
    place = evaluations.Evaluation(tmp_path, "other", None)
    (tmp_path / "evaluation.json").write_text('{"knn": ')
    (tmp_path / "features.npz").write_bytes(b"PK nothing")
    for read in (place.numbers, place.features):
        with pytest.raises(UserError, match="damaged; delete it and evaluate again"):
            read()


def test_what_is_printed_is_rounded_and_says_untrained(run, folders: Path, capsys) -> None:
    found = run.evaluate(str(folders / "a/labelled"), protocols=["knn"])
    text = f"{found}"
    assert "untrained" in text
    assert "random" not in text
    assert not re.search(r"\d\.\d{5}", text)
    assert set(found["knn"]) == {"this", "random", "raw"}
    assert main(["evaluate", str(run.path), "--data", str(folders / "a/labelled"), "--protocol", "knn"]) == 0
    said = capsys.readouterr().out
    assert text in said
    assert not re.search(r"\d\.\d{5}", str(found["knn"]["this"]))
    assert "0.833" in str(evaluation.Number(0.8333333333))


def test_an_interrupted_run_can_be_used(tmp_path: Path, folders: Path, capsys) -> None:
    """Before its end a run has checkpoints, but no encoder."""
    run = selftaught.train("simclr", "digits", out=str(tmp_path / "run"), augment="grey", **TINY)
    trained = run.encoder.state_dict()
    for name in ("encoder.safetensors", "encoder.json"):
        (run.path / name).unlink()
    with pytest.raises(UserError, match=r"resume .* .or use what there is, with partial"):
        selftaught.load(run.path).evaluate(protocols=["knn"])
    partial = selftaught.load(run.path, partial=True)
    assert all((partial.encoder.state_dict()[k] == v).all() for k, v in trained.items())
    assert "not finished" in repr(partial)
    assert partial.evaluate(protocols=["knn"], baselines=False)["knn"]["this"]["accuracy"].mean > 0.1
    assert not (run.path / "evaluation.json").exists()
    assert partial.apply("digits?n=20", tmp_path / "e.npy") == 20
    assert json.loads(partial.export("safetensors", tmp_path / "x").with_suffix(".json").read_text())["channels"] == 1
    assert main(["evaluate", str(run.path), "--partial", "--protocol", "knn"]) == 0
    assert "not finished" in capsys.readouterr().out
    for path in (run.path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="interrupted before its first checkpoint"):
        selftaught.load(run.path, partial=True).encoder  # noqa: B018


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    run = selftaught.train("simclr", "digits", out=str(tmp_path / "run"), augment="grey", **TINY | {"steps": 1})
    path = run.path / "encoder.safetensors"
    weights = load_file(path)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].flatten()[0] = float("nan")
    save_file(weights, path)
    with pytest.raises(UserError, match=r"encoder.safetensors is damaged .* selftaught train --resume"):
        selftaught.load(run.path).encoder  # noqa: B018
    (run.path / "encoder.json").write_text((run.path / "encoder.json").read_text().replace('"sha256"', '"other"'))
    with pytest.raises(UserError, match=f"NaN or infinity in {re.escape(name)}: the training diverged"):
        selftaught.load(run.path).encoder  # noqa: B018
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="not this run's weights, or damaged") as error:
        selftaught.load(run.path).encoder  # noqa: B018
    assert "\n" not in str(error.value)


def test_without_labels_the_page_has_neighbours_of_both_encoders_and_the_map(run) -> None:
    run.evaluate(protocols=["diagnostics"])
    page = run.report().read_text()
    assert '<p class="whose">this encoder</p>' in page
    assert '<p class="whose">untrained encoder</p>' in page
    assert ">Embedding map</h2>" in page
    assert "neighbour stability" in page


def test_a_protocol_that_the_data_do_not_admit_takes_nothing_from_the_others(run, tmp_path: Path) -> None:
    """One test picture of each class: no neighbour of it to find among the others, but neighbours to learn from."""
    write_photos(tmp_path / "few", count=15, classes=3)
    said: list[str] = []
    found = run.evaluate(str(tmp_path / "few"), baselines=False, say=said.append)
    assert {"knn", "linear"} <= set(found)
    assert "retrieval" not in found
    assert any(line.startswith("without retrieval: query labels") for line in said)
    with pytest.raises(UserError, match="query labels"):
        run.evaluate(str(tmp_path / "few"), protocols=["retrieval"], baselines=False)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("pairs:?volume=/d/scans/&mask=/d/masks/&missing=drop", "pairs:?volume=scans/&mask=masks/&missing=drop"),
        ("/home/me/clips?window=16", "clips?window=16"), ("motion?train=5", "motion?train=5"),
        ("wds:https://there/x.tar?n=1", "wds:https://there/x.tar?n=1"),
    ],
)  # fmt: skip
def test_a_source_with_options_is_called_by_the_ends_of_its_paths(data: str, name: str, tmp_path: Path) -> None:
    assert evaluations.evaluation_on(Layout(tmp_path), "digits", data).name == name


@pytest.mark.parametrize("place", ["evaluation.project", "run.shown_samples.thumbnail"])
def test_a_bug_of_the_report_is_not_swallowed(run, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TypeError of our own ends the report as what it is; no section is left out without a word."""

    def wrong(*_: object, **__: object) -> None:
        raise TypeError("a bug of ours")

    monkeypatch.setattr(f"selftaught.{place}", wrong)
    with pytest.raises(TypeError, match="a bug of ours"):
        run.report()


def test_a_view_that_draws_nothing_says_nothing_about_stability() -> None:
    source = open_source("digits?n=40")
    options = {"channels": 1, "encoder": "vit-nano", "image_size": 16, "decoder": "24-1-3"}
    still, drawn = (methods.get("mae")(augment=augment, **options).eval() for augment in ("none", "grey"))
    assert _second_view(still, source) is None
    assert len(_second_view(drawn, source)) == 40
