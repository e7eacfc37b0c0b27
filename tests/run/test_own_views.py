"""Views of the user's own reach the network, stay in the run's configuration, and are refused where they can't fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import selftaught
from selftaught import methods
from selftaught.cli import main
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError
from selftaught.run.own_views import described, install
from selftaught.views import CenterCrop, HorizontalFlip, Pipeline, Resize
from tests.conftest import TINY

STILL = "views:\n  - ops: [{Resize: {size: 32}}, {CenterCrop: {size: 32}}]\n"


def small(slug: str = "simclr", **more: Any) -> Any:
    return methods.get(slug)(encoder="resnet10-narrow", stem="standard", image_size=32, channels=1, **more)


def test_they_reach_the_batch_and_one_stands_for_all() -> None:
    method = small(projector="8-8", augment="grey")
    install(method, described(Pipeline((Resize(32), CenterCrop(32)))))
    data = DataModule("digits", method, batch_size=8, workers=0, total_batches=1)
    batch = next(iter(data.train_dataloader()))
    first, second = method.prepare(batch)["views"]
    assert torch.equal(first, second)
    plain = small(projector="8-8", augment="grey")
    data = DataModule("digits", plain, batch_size=8, workers=0, total_batches=1)
    first, second = plain.prepare(next(iter(data.train_dataloader())))["views"]
    assert not torch.equal(first, second)


def test_what_can_not_fit_is_refused() -> None:
    still = Pipeline((Resize(32), CenterCrop(32)))
    with pytest.raises(UserError, match="learns from 2 views of an image, 3 are described"):
        install(small(projector="8-8"), described([still] * 3))
    with pytest.raises(UserError, match="takes a recipe"):
        install(methods.get("srgan")(channels=3), described(still))
    with pytest.raises(UserError, match="give a YAML file, a Pipeline"):
        described(3)


@pytest.mark.slow
def test_a_run_keeps_them_and_is_repeated_with_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(STILL)
    options = TINY | {"steps": 2, "batch_size": 8, "augment": "grey", "device": "cpu", "precision": "32"}
    arguments = [
        part for name, value in options.items() if name != "quiet"
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]  # fmt: skip
    command = ["train", "simclr", "--data", "digits", "--out", str(tmp_path / "a"), *arguments]
    assert main([*command, "--own-views", str(file), "--quiet", "--no-report"]) == 0
    run = selftaught.load(tmp_path / "a")
    assert len(run.method.learning_views()) == 2
    file.unlink()
    again = selftaught.train("simclr", config=run.layout.config, out=str(tmp_path / "b"), quiet=True)
    for (name, a), b in zip(run.encoder.state_dict().items(), again.encoder.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    other = selftaught.train(
        "simclr", "digits", own_views=[Pipeline((Resize(32), CenterCrop(32), HorizontalFlip(1.0)))] * 2,
        out=str(tmp_path / "c"), **options,
    )  # fmt: skip
    assert not torch.equal(
        other.encoder.state_dict()["model.conv1.weight"], run.encoder.state_dict()["model.conv1.weight"]
    )
