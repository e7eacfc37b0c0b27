"""A run of two stages with averaged and best weights, killed before and after every file it puts in place."""

from __future__ import annotations

import os
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


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it on the way."""


def _train(folder: Path, kill: int | None, monkeypatch: pytest.MonkeyPatch) -> int:
    """Train or go on; with ``kill`` die at that half-step of putting files in place. Returns the half-steps taken."""
    count = 0
    real = os.replace

    def replace(source: Any, target: Any, **more: Any) -> None:
        nonlocal count
        if kill is not None and count == kill:
            raise Killed
        real(source, target, **more)
        count += 2
        if kill is not None and count - 1 == kill:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        patched.setattr(Path, "replace", lambda self, target: replace(self, target))
        data = series()
        job = training.Job(
            folder, Staged, Settings(**OPTIONS), Config(), samples.facts(data), {"data": data}, data, quiet=True
        )
        stages.train_job(job)
    return count


def test_every_seam_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seams = _train(tmp_path / "whole", None, monkeypatch)
    whole = load_file(tmp_path / "whole/encoder.safetensors")
    kept = torch.load(tmp_path / "whole/stages/first/checkpoints/final.pt", weights_only=True)
    assert seams > 30
    tried = 0
    for kill in range(seams):
        folder = tmp_path / f"cut{kill}"
        try:
            _train(folder, kill, monkeypatch)
        except Killed:
            _train(folder, None, monkeypatch)
            tried += 1
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
    first = next(photos.rglob("000.png"))
    first.rename(first.with_name("999.png"))
    with pytest.raises(UserError, match="not those that the run began with"):
        selftaught.train("simclr", resume=run.path)


def test_a_failed_start_leaves_no_folder(tmp_path: Path) -> None:
    from tests.conftest import TINY

    with pytest.raises(UserError, match="nosuchnet"):
        selftaught.train("simclr", "digits", out=str(tmp_path / "run"), **TINY | {"encoder": "nosuchnet"})
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
    with pytest.raises(UserError, match="give --out"):
        selftaught.train("simclr", "digits", resume="auto", **options)
