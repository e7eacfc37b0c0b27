"""A finished run trained further equals the run that was long from the beginning, where the schedule allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import selftaught
from selftaught.cli import main
from selftaught.errors import UserError
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
    with pytest.raises(UserError, match="leave out --lr"):
        selftaught.train("byol", extend=str(longer.path), steps=9, lr=0.1)
