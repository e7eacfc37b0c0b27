"""A run of two stages with averaged and best weights, killed before and after every file it puts in place."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import selftaught
from selftaught.engine.method import Stage
from selftaught.errors import UserError
from selftaught.run import samples, stages, training
from selftaught.run_settings import Settings
from tests.engine.test_several_optimisers import Config, Toy, series
from tests.harness import Killed, killing

OPTIONS: dict[str, Any] = {
    "steps": 5, "batch_size": 8, "workers": 0, "knn_every": 0, "precision": "32", "loggers": ["none"], "ema": 0.7,
    "checkpoint_steps": 2, "log_every": 2, "clip": 1.0,
}  # fmt: skip


class Staged(Toy):
    """Two networks over two stages; the first stage keeps its best weights."""

    stages = ("first", "second")

    def stage_plan(self, stage: str) -> Stage:
        return Stage(keep="best", validation=0.2) if stage == "first" else Stage(settings={"ema": 0.5})

    def validate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": (self.steps - 5) * self.first.weight.square().mean()}


def _train(folder: Path) -> None:
    data = series()
    job = training.Job(
        folder, Staged, Settings(**OPTIONS), Config(), samples.facts(data), {"data": data}, data, quiet=True
    )
    stages.train_job(job)


def _rows(folder: Path) -> list[list[tuple[str, str]]]:
    """The rows of the metrics of all stages, without the clock's."""
    found = []
    for path in sorted(folder.rglob("metrics.csv")):
        with path.open(newline="") as file:
            found += [[item for item in row.items() if item[0] != "per_second"] for row in csv.DictReader(file)]
    return found


def test_every_seam_ends_in_the_same_weights_and_metrics(tmp_path: Path) -> None:
    with killing(None) as passed:
        _train(tmp_path / "whole")
    seams = passed[0]
    whole = load_file(tmp_path / "whole/encoder.safetensors")
    kept = torch.load(tmp_path / "whole/stages/first/checkpoints/final.pt", weights_only=True)
    assert seams > 30
    tried = 0
    for kill in range(seams):
        folder = tmp_path / f"cut{kill}"
        with pytest.raises(Killed), killing(kill):
            _train(folder)
        _train(folder)
        tried += 1
        assert _rows(folder) == _rows(tmp_path / "whole"), f"seam {kill}"
        found = load_file(folder / "encoder.safetensors")
        assert all(torch.equal(whole[name], found[name]) for name in whole), f"seam {kill}"
        stage = torch.load(folder / "stages/first/checkpoints/final.pt", weights_only=True)
        assert all(torch.equal(kept[name], stage[name]) for name in kept), f"seam {kill}"
    assert tried == seams


def test_going_on_refuses_another_method_and_changed_files(tmp_path: Path) -> None:
    from tests.conftest import TINY, write_photos

    photos = write_photos(tmp_path / "photos")
    run = selftaught.train("simclr", str(photos), out=str(tmp_path / "run"), augment="grey", **TINY | {"steps": 2})
    with pytest.raises(UserError, match=r"is a run of simclr, not of dcl"):
        selftaught.train("dcl", resume=run.path)
    first, other = next(photos.rglob("000.png")), next(photos.rglob("001.png"))
    changes = {
        "a file renamed": lambda: first.rename(first.with_name("999.png")),
        "pixels replaced": lambda: first.write_bytes(other.read_bytes()),
        "a class renamed": lambda: first.parent.rename(first.parent.with_name("other")),
        "a file more": lambda: (photos / "class0" / "more.png").write_bytes(other.read_bytes()),
        "two files for one another": lambda: (
            first.rename(photos / "x"),
            other.rename(first),
            (photos / "x").rename(other),
        ),
    }
    shutil.copytree(photos, tmp_path / "kept")
    for what, change in changes.items():
        change()
        with pytest.raises(UserError, match="can only go on with the same data"):
            selftaught.train("simclr", resume=run.path)
        shutil.rmtree(photos)
        shutil.copytree(tmp_path / "kept", photos)
        assert what
    selftaught.train("simclr", resume=run.path, quiet=True)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"encoder": "nosuchnet"}, "nosuchnet"),
        ({"loggers": ["mlflow"]}, "mlflow is not installed"),
        ({"init": "nosuch.pth"}, "nosuch.pth"),
        ({"views": "nosuch.yaml"}, "nosuch.yaml"),
        ({"image_size": 3}, "image_size=3 is too small"),
    ],
    ids=str,
)
def test_a_failed_start_leaves_no_folder(
    option: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that did would stand in the way of the corrected command."""
    from tests.conftest import TINY

    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=said):
        selftaught.train("simclr", "digits?n=60", out=str(tmp_path / "run"), augment="grey", **TINY | option)
    assert not (tmp_path / "run").exists()


def test_resume_auto_starts_goes_on_and_refuses_other_options(tmp_path: Path) -> None:
    from tests.conftest import TINY

    options = TINY | {"steps": 4, "loggers": ["none"]}
    out = str(tmp_path / "run")
    first = selftaught.train("simclr", "digits", out=out, augment="grey", resume="auto", **options)
    weights = (first.path / "encoder.safetensors").read_bytes()
    (first.path / "encoder.safetensors").unlink()
    (first.path / "state.json").unlink()
    again = selftaught.train("simclr", "digits", out=out, augment="grey", resume="auto", **options)
    assert (again.path / "encoder.safetensors").read_bytes() == weights
    with pytest.raises(UserError, match="was begun with steps=4, not 9"):
        selftaught.train("simclr", "digits", out=out, augment="grey", resume="auto", **options | {"steps": 9})
    with pytest.raises(UserError, match="give out"):
        selftaught.train("simclr", "digits", resume="auto", **options)
