"""Real tiny grids on digits: everything measured is what the parts say, done cells are skipped, cut ones go on, a
failing one is recorded; the page and the tables hold it all.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import selftaught
from selftaught import cli, evaluation
from selftaught.benchmark import grid, plan
from selftaught.benchmark.cells import Place, execute
from selftaught.errors import UserError
from selftaught.evaluation.ood import ood
from selftaught.run import trained
from tests.benchmark.helpers import TINY
from tests.harness import Killed, killing

pytestmark = pytest.mark.slow
FULL = TINY | {
    "methods": ["untrained", "simclr", "supervised"],
    "sources": TINY["sources"] | {"both": ["small", "other"]},
    "data": ["small", "other"],
    "fractions": [0.25, 1.0],
    "cross": True,
    "ood": ["knn", "energy"],
    "blocks": [
        {},
        {"methods": ["simclr"], "data": ["small"], "initialisations": [
            {"name": "warm", "method": "supervised", "data": "other"}]},
        {"methods": ["simclr"], "data": ["both"], "judge_on": ["small", "other"]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> grid.Finished:
    lines: list[str] = []
    found = grid.run(FULL, out=tmp_path_factory.mktemp("grid") / "g", say=lines.append)
    assert len(lines) == found.cells == 10
    assert lines[-1].startswith("10/10 ")
    return found


def records(found: grid.Finished, **wanted: Any) -> list[dict[str, Any]]:
    return [r for r in found.records if all(r[key] == value for key, value in wanted.items())]


def test_everything_is_done_and_written(whole: grid.Finished) -> None:
    assert whole.failures == {}
    assert whole.trained == 10
    names = set(whole.tables)
    assert {"linear-accuracy", "linear-accuracy-25", "by-initialisation", "multi-domain", "cross-dataset"} <= names
    assert {"ood-auroc", "ood-aupr", "ood-fpr95", "ood-by-set-knn"} <= names
    for name in names:
        for suffix in (".md", ".csv", ".tex"):
            assert (whole.folder / "tables" / f"{name}{suffix}").stat().st_size > 20
    figures = {path.name for path in (whole.folder / "figures").glob("*.svg")}
    assert {"linear-accuracy-ranks.svg", "ood-simclr.svg", "cross-dataset-simclr.svg"} <= figures
    page = whole.page.read_text()
    for words in ("accuracy by initialisation", "out-of-distribution", "data:image/svg+xml;base64", "grid.yaml"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert json.loads((whole.folder / "results.json").read_text())["records"] == whole.records


def test_a_cell_is_an_ordinary_run_and_its_numbers_are_those_of_the_protocols(whole: grid.Finished) -> None:
    (cell,) = [c for c in plan.read(FULL).cells
               if (c["method"], c["data"], c["start"]["name"]) == ("simclr", "small", "random")]  # fmt: skip
    run = selftaught.load(grid.place_of(whole.folder, cell).run)
    assert run.config["settings"]["steps"] == 2
    parts = {}
    from selftaught.run.features import embed

    for name, spec in TINY["sources"].items():
        sides = [selftaught.data.open_source(spec, split=split) for split in ("train", "test")]
        parts[name] = [part for side in sides for part in embed(run.method, side, workers=0)[:2]]
    x, y, tx, ty = parts["small"]
    picked = evaluation.subset(y, fraction=0.25, seed=0)
    for fraction, rows in ((0.25, picked), (1.0, np.arange(len(y)))):
        (found,) = records(whole, key=cell["key"], judged="small", protocol="linear", fraction=fraction)
        expected = evaluation.linear(x[rows], y[rows], tx, ty, seed=0)
        assert found["numbers"]["accuracy"] == pytest.approx(expected["accuracy"].mean, abs=1e-9)
        assert found["numbers"]["auc"] == pytest.approx(expected["auc"].mean, abs=1e-6)
    (found,) = records(whole, key=cell["key"], judged="other", protocol="linear")
    assert found["numbers"]["accuracy"] == pytest.approx(evaluation.linear(*parts["other"])["accuracy"].mean)
    (found,) = records(whole, key=cell["key"], judged="other", protocol="ood knn")
    expected = ood(x, tx, parts["other"][2], train_y=y, scorer="knn", resamples=0)
    assert found["numbers"] == pytest.approx({key: number.mean for key, number in expected.numbers.items()})


def test_supervised_cells_are_judged_by_their_own_classes_with_their_share_of_labels(whole: grid.Finished) -> None:
    for fraction in (0.25, 1.0):
        main = records(whole, name="supervised", data="small", judged="small", headline=True, fraction=fraction)
        assert [r["protocol"] for r in main] == ["classify"]
    cells = [c for c in plan.read(FULL).cells if c["method"] == "supervised" and c["data"] == "small"]
    (few,) = [c for c in cells if c["fraction"] < 1]
    run = selftaught.load(grid.place_of(whole.folder, few).run)
    labels = np.asarray(selftaught.data.open_source(TINY["sources"]["small"], split="train").labels)
    assert run.config["data"]["samples"] == len(evaluation.subset(labels, fraction=0.25))


def test_a_start_and_an_untrained_encoder_are_what_they_say(whole: grid.Finished) -> None:
    cells = plan.read(FULL).cells
    warm = next(c for c in cells if c["start"]["name"] == "warm")
    before = next(c for c in cells if c["key"] == warm["start"]["key"])
    bare = load_file(grid.place_of(whole.folder, before).folder / "encoder" / "encoder.safetensors")
    source = selftaught.load(grid.place_of(whole.folder, before).run).method.encoder.state_dict()
    assert bare.keys() == source.keys()
    assert all((bare[name] == source[name].cpu()).all() for name in bare)
    config = selftaught.load(grid.place_of(whole.folder, warm).run).config
    assert config["settings"]["init"].endswith("encoder")
    untrained = next(c for c in cells if c["method"] == "untrained" and c["data"] == "small")
    run = selftaught.load(grid.place_of(whole.folder, untrained).run)
    assert run.config["options"]["lr"] == 0
    plain = trained.built(run.config, run.path)
    for name, weight in plain.encoder.named_parameters():
        assert (weight == dict(run.method.encoder.named_parameters())[name].cpu()).all()


def test_done_cells_are_skipped_and_a_new_question_trains_nothing(whole: grid.Finished) -> None:
    weights = sorted(whole.folder.glob("cells/*/run/encoder.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    again = grid.run(FULL, out=whole.folder)
    assert again.trained == 0
    assert again.records == whole.records
    asked = grid.run(FULL | {"probe": "knn", "ood": [], "cross": False}, out=whole.folder)
    assert asked.trained == 10
    assert [path.stat().st_mtime_ns for path in weights] == before
    assert {r["protocol"] for r in asked.records if r["headline"]} == {"knn", "classify"}
    assert not list(whole.folder.glob("tables/linear*")) + list(whole.folder.glob("figures/ood*"))


def test_a_cut_grid_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    config = TINY | {"methods": ["simclr", "vicreg"], "options": TINY["options"] | {"steps": 12}}
    straight = grid.run(config, out=tmp_path / "straight")
    folder = tmp_path / "cut"
    first = grid.place_of(folder, plan.read(config).cells[0])

    def cut() -> None:
        until = time.monotonic() + 120
        while first.steps() < 4 and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        grid.run(config, out=folder)
    thread.join()
    assert (first.run / "checkpoints/train.ckpt").exists()
    assert not (first.run / "encoder.safetensors").exists()
    assert first.state(plan.read(config).cells[0]) == "begun"
    resumed = grid.run(config, out=folder)
    assert resumed.trained == 2
    assert resumed.records == straight.records
    for cell in plan.read(config).cells:
        a, b = (load_file(grid.place_of(f, cell).run / "encoder.safetensors") for f in (tmp_path / "straight", folder))
        assert all((a[name] == b[name]).all() for name in a)


def test_a_failing_cell_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    config = TINY | {"sources": TINY["sources"] | {"few": "digits?n=12"}, "data": ["few", "small"]}
    lines: list[str] = []
    found = grid.run(config, out=tmp_path / "g", say=lines.append)
    assert list(found.failures) == ["simclr on few, seed 0"]
    assert "batch_size" in found.failures["simclr on few, seed 0"]
    assert "failed" in lines[0]
    assert {r["data"] for r in found.records} == {"small"}
    assert "1 not done" in found.page.read_text()
    assert "batch" in found.summary()[1]
    cell = plan.read(config).cells[0]
    assert "Traceback" in json.loads(grid.place_of(found.folder, cell).error.read_text())["traceback"]
    assert grid.run(config, out=tmp_path / "g").trained == 1  # tried again, the good one skipped
    with pytest.raises(UserError, match="no cell of grid is done"):
        grid.run(config | {"data": ["few"]}, out=tmp_path / "none")


def test_worker_processes_measure_the_same(tmp_path: Path) -> None:
    config = TINY | {"seeds": 2}
    alone, shared = (grid.run(config, out=tmp_path / str(n), workers=n) for n in (1, 2))
    assert shared.failures == {}
    for one, two in zip(alone.records, shared.records, strict=True):
        assert one["numbers"] == pytest.approx(two["numbers"], abs=0.15)
        assert {k: v for k, v in one.items() if k != "numbers"} == {k: v for k, v in two.items() if k != "numbers"}


def test_a_broken_run_folder_and_a_finished_one_without_result(tmp_path: Path) -> None:
    (cell,) = plan.read(TINY).cells
    place = Place(tmp_path / "cell")
    place.run.mkdir(parents=True)
    (place.run / "junk").write_text("from a run that was cut before it had a configuration")
    assert execute(cell, str(place.folder)) == ""
    stamp = (place.run / "encoder.safetensors").stat().st_mtime_ns
    kept = place.records()
    place.result.unlink()
    assert execute(cell, str(place.folder)) == ""
    assert (place.run / "encoder.safetensors").stat().st_mtime_ns == stamp
    assert place.records() == kept


def test_folders_that_are_no_grids_and_grids_at_work(tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        grid.run(TINY, out=tmp_path / "thesis")
    with pytest.raises(UserError, match="a file"):
        grid.run(TINY, out=tmp_path / "thesis" / "chapter.tex")
    (tmp_path / "begun").mkdir()
    for left in (".lock", "grid.yaml.part"):  # by a grid that was killed before its first file
        (tmp_path / "begun" / left).write_text("")
    grid._make(tmp_path / "begun")
    with pytest.raises(Killed), killing(0):
        grid.run(TINY, out=tmp_path / "new")
    grid._make(tmp_path / "new")
    (tmp_path / "busy").mkdir()
    with FileLock(str(tmp_path / "busy" / ".lock")):
        (tmp_path / "busy" / "grid.yaml").write_text("")
        with pytest.raises(UserError, match="at work"):
            grid.run(TINY, out=tmp_path / "busy")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TINY))
    assert cli.main(["benchmark", "mine.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 1 cells done (1 now); page: benchmark-mine/index.html" in out
    assert "1/1 simclr on small, seed 0: linear accuracy" in err
    for arguments, said in (
        (["none.yaml"], "none.yaml"),
        (["mine.yaml", "--quick"], "no option --quick (see selftaught benchmark --help)"),
        (["mine.yaml", "--workers", "0"], "--workers 0"),
        (["claims", "--workers", "2"], "no option --workers (see selftaught benchmark claims --help)"),
        (["medmnist", "--quick", "--data", "x"], "--data"),
        (["medmnist", "--data", "no-folder"], "no-folder"),
        (["medmnist", "--quick", "--size", "64"], "--size"),
        (["medmnist", "--quick", "--sets", "mars"], "mars"),
    ):
        assert cli.main(["benchmark", *arguments]) == 2
        said_so = capsys.readouterr().err
        assert said in said_so
        assert said_so.count("\n") == 1


def test_the_board_shows_steps_and_the_rest(tmp_path: Path) -> None:
    from rich.console import Console

    from selftaught.benchmark.progress import Board

    cells = plan.read(TINY | {"seeds": 3}).cells
    folders = [tmp_path / cell["key"] for cell in cells]
    said: list[str] = []
    with Board(cells, folders, 1, said.append, live=False) as board:
        board.started(0)
        Place(folders[0]).run.mkdir(parents=True)
        (Place(folders[0]).run / "metrics.csv").write_text("stage,step,lr\ntrain,1,0.1\ntrain,2,0.1\n")
        console = Console(width=120, file=open(os.devnull, "w"), record=True)  # noqa: SIM115
        console.print(board.picture())
        text = console.export_text()
        assert "1/4 cells" in text
        assert "simclr on small, seed 0" in text
        assert "step 2/2" in text
        board.ended(0, "it broke")
        assert said == ["2/4 simclr on small, seed 0: failed: it broke (0 s)"]
        assert "1 failed" in board.summary()
