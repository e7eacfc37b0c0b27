"""``train --dry-run``: what a run would be is what it then is."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import selftaught
from selftaught.cli import main
from selftaught.run.rehearsing import activation_bytes, sketch
from tests.conftest import TINY


def test_a_sketch_goes_from_the_lowest_to_the_highest_value() -> None:
    assert sketch([0.0, 1.0]) == "▁█"
    assert sketch([5.0, 5.0, 5.0]) == "▁▁▁"
    assert list(sketch(range(8))) == sorted(sketch(range(8)))


def test_what_a_forward_pass_keeps_is_counted_once() -> None:
    layer, x = nn.Linear(20, 30, bias=False), torch.randn(7, 20)
    assert activation_bytes(lambda: layer(x).sum()) == 4 * (7 * 20)  # the input; the weight's gradient needs no more
    # relu keeps its output, which the product keeps too: once
    assert activation_bytes(lambda: (layer(x).relu() * 2 * layer(x)).sum()) >= 4 * (7 * 20 + 7 * 30)
    same = x.requires_grad_()
    assert activation_bytes(lambda: (same * same).sum()) == 4 * 7 * 20


def test_it_says_what_the_run_is_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {k: v for k, v in TINY.items() if k != "quiet"} | {"log_every": 1, "knn_every": 0}
    options |= {"lr_scaling": "linear", "lr": 0.4, "warmup_epochs": 0.01, "steps": 6, "batch_size": 32}
    words = [word for k, v in options.items() for word in (f"--{k.replace('_', '-')}", str(v))]
    assert main(["train", "byol", "--data", "digits?n=100", "--dry-run", *words]) == 0
    said = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    run = selftaught.train("byol", "digits?n=100", out=str(tmp_path / "run"), quiet=True, **options)
    with run.layout.metrics.open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert re.search(r"^6 steps, 2 passes over the data$", said, re.MULTILINE)
    peak = max(float(n) for n in re.search(r"main: \w+, lr ([^▁█]+?)  ", said)[1].split(" -> "))  # type: ignore[index]
    assert peak == pytest.approx(0.4 * 32 / 256, rel=0.01)
    assert rates == pytest.approx([peak * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)], rel=0.02)
    parameters = sum(p.numel() for p in run.method.parameters())
    assert f"BYOL: {parameters / 1e6:.3g} M parameters" in said
    assert re.search(r"target_decay 0\.\d+ -> ", said)
    assert "views[1]: (N, 1, 32, 32) float32" in said
    assert main(["train", "byol", "--resume", str(run.path), "--dry-run"]) == 2
    assert "leave out --resume" in capsys.readouterr().err


def test_patches_that_are_not_as_the_encoders_name_says_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "digits?n=100", "--image-size", "64", "--steps", "1", "--batch-size", "8", "--dry-run"]
    assert main(["train", "simclr", "--encoder", "vit_tiny_patch16_224", *words]) == 0
    said = "vit_tiny_patch16_224: patches of 8 pixels in place of 16, which are kept from 112 pixels on"
    assert said in capsys.readouterr().out.splitlines()


def test_a_step_of_several_losses_and_every_stage_are_said() -> None:
    said = selftaught.rehearse("srgan", "photos:whole", patch=16, pretrain_steps=3, steps=5, discriminator_width=4)
    assert "stage 1, pretrain: 3 steps" in said
    assert "stage 2, gan: 5 steps" in said
    assert said.count("generator: adam") == 2
    long = selftaught.rehearse(
        "byol", "digits?n=100", **{k: v for k, v in TINY.items() if k != "quiet"} | {"steps": 3000}
    )
    assert "3,000 steps, 1,000 passes over the data" in long
    assert "was not measured" in said


@pytest.mark.parametrize(
    ("method", "options"), [("bicubic", {"patch": 16}), ("infwide", {"network": "wiener", "patch": 24})]
)
def test_what_learns_nothing_is_one_step(method: str, options: dict[str, Any]) -> None:
    said = selftaught.rehearse(method, "photos:whole", **options, steps=5000, batch_size=2)
    assert "; 1 step; " in said
    assert "\n1 step, " in said
    assert ", lr " not in said
