"""Runs made longer and shorter than they were begun: extended to the bit, or finished where they stand."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import selftaught
from selftaught.cli import main
from selftaught.errors import UserError
from selftaught.run import training
from selftaught.run.layout import Layout, new_folder
from tests.conftest import TINY

OPTIONS: dict[str, Any] = TINY | {
    "augment": "grey", "schedule": "constant", "warmup_epochs": 0.0, "lr_scaling": "none", "device": "cpu",
    "precision": "32", "batch_size": 16, "loggers": ["none"], "target_schedule": "constant",
}  # fmt: skip


def test_it_ends_where_the_long_run_ends_to_the_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Optimiser, momentum copy, averages and the order of samples go on: BYOL with --ema over 4 + 3 steps is 7."""
    more = {"ema": 0.9}
    short = selftaught.train("byol", "digits", out=str(tmp_path / "short"), **OPTIONS | more | {"steps": 4})
    before = (short.path / "encoder.safetensors").read_bytes()
    whole = selftaught.train("byol", "digits", out=str(tmp_path / "whole"), **OPTIONS | more | {"steps": 7})
    arguments = ["--steps", "7", "--out", str(tmp_path / "longer"), "--quiet", "--no-report"]
    assert main(["train", "--extend", str(short.path), *arguments]) == 0
    assert "7 steps" in capsys.readouterr().out
    longer = selftaught.load(tmp_path / "longer")
    for (name, a), b in zip(whole.encoder.state_dict().items(), longer.encoder.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert (short.path / "encoder.safetensors").read_bytes() == before
    steps = [row.split(",")[1] for row in longer.layout.metrics.read_text().splitlines()[1:]]
    assert steps == ["2", "4", "6", "7"]
    assert not (longer.path / "evaluation.json").exists()
    with pytest.raises(UserError, match="has 7 steps already"):
        selftaught.train("byol", extend=str(longer.path), steps=7)
    with pytest.raises(UserError, match="say how long it is to be in all"):
        selftaught.train("byol", extend=str(longer.path))
    with pytest.raises(UserError, match="leave out lr"):
        selftaught.train("byol", extend=str(longer.path), steps=9, lr=0.1)
    last = longer.layout.checkpoint("train")
    saved = torch.load(last, weights_only=True)
    del saved["selftaught"]["epoch_batches"]
    torch.save(saved, last)
    with pytest.raises(UserError, match=r"of an older version, .* give steps, or train anew"):
        selftaught.train("byol", extend=str(longer.path), epochs=9)


def test_an_interrupted_run_is_finished_where_it_stands(tmp_path: Path) -> None:
    """Stopped after 4 of 9 steps: its weights are those of the averages at its last checkpoint, and it counts 4."""

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if module.steps == 5:
                raise RuntimeError("power cut")

    more = {"ema": 0.9, "checkpoint_steps": 2}
    with pytest.raises(RuntimeError, match="power cut"):
        training.start("byol", "digits", out=str(tmp_path / "cut"), callbacks=[Stop()], **OPTIONS | more | {"steps": 9})
    checkpoint = Layout(tmp_path / "cut").checkpoint("train")
    content = torch.load(checkpoint, weights_only=True)
    content["callbacks"]["Metrics"]["seconds"] += 1000  # what the first process took counts
    torch.save(content, checkpoint)
    whole = selftaught.train("byol", "digits", out=str(tmp_path / "whole"), **OPTIONS | more | {"steps": 4})
    assert main(["train", "--resume", str(tmp_path / "cut"), "--finish-now", "--quiet", "--no-report"]) == 0
    run = selftaught.load(tmp_path / "cut")
    assert run.layout.read_state()["stages"]["train"]["steps"] == 4
    assert run.layout.read_state()["stages"]["train"]["seconds"] > 1000
    for (name, a), b in zip(whole.encoder.state_dict().items(), run.encoder.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(UserError, match="name it with resume"):
        selftaught.train("byol", "digits", finish_now=True)


def test_the_first_process_fills_the_folder_and_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks of one srun, the second one first: it gets the folder of the first, whole, and fills none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SELFTAUGHT_RUN_FOLDER", raising=False)
    for name, value in {"SLURM_JOB_ID": "9", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}.items():
        monkeypatch.setenv(name, value)

    def fill(folder: Path) -> None:
        time.sleep(0.3)  # a long copy
        (folder / f"by{os.environ['SLURM_PROCID']}").write_text("")

    child = os.fork()
    if child == 0:
        os.environ["SLURM_PROCID"] = "1"
        folder = new_folder("extended", "byol", "digits", fill)
        os._exit(0 if [path.name for path in folder.iterdir()] == ["by0"] else 1)
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert new_folder("extended", "byol", "digits", fill) == Path("extended")
    assert os.waitpid(child, 0)[1] == 0
    monkeypatch.delenv("SELFTAUGHT_RUN_FOLDER", raising=False)

    def fails(folder: Path) -> None:
        raise UserError("no room")

    with pytest.raises(UserError, match="no room"):
        new_folder("other", "byol", "digits", fails)
    assert not Path("other").exists(), "a failed copy is no hindrance to the next"
