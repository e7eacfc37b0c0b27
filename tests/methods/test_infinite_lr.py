"""Continual masked autoencoders as wired: regularisers that begin with a task, memories of the network before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import selftaught
from selftaught import methods, objectives
from selftaught.data import open_source

TINY = {
    "encoder": "vit-nano", "image_size": 8, "patch": 2, "decoder": "16-1-2", "decoder_project": True,
    "positions": "sincos",
}  # fmt: skip


def made(**options):
    torch.manual_seed(0)
    return methods.InfiniteLR(channels=1, **TINY | options)


def moved(method):
    with torch.no_grad():
        for p in method.encoder.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    return method


def test_the_paper_s_small_form_is_the_default() -> None:
    method = methods.InfiniteLR(channels=3)
    assert method.encoder_network.grid == (16, 16)
    assert (method.encoder_network.dim, method.decoder.count) == (192, 256)
    assert method.visible(2, torch.device("cpu")).shape == (2, 64)
    assert method.endless is not None


@pytest.mark.parametrize("regulariser", ["mas", "lwf"])
def test_a_regulariser_begins_at_zero_with_the_second_task(regulariser: str) -> None:
    method, source, x = made(regulariser=regulariser, mas_weight=3.0), open_source("digits"), torch.randn(4, 1, 8, 8)
    assert set(method.loss({"views": [x]})) == {"loss", "mae"}
    method.task = 1
    method.begin_task(source.subset(range(100)))
    found = method.loss({"views": [x]})
    assert found[regulariser].item() == pytest.approx(0, abs=1e-6)
    torch.manual_seed(1)
    found = moved(method).loss({"views": [x]})
    assert found[regulariser].item() > 0
    assert found["loss"].item() == pytest.approx((found["mae"] + found[regulariser]).item(), rel=1e-5)
    found["loss"].backward()
    assert all(p.grad is None for p in method.parameters() if not p.requires_grad)
    if regulariser == "mas":
        weights = [p for p in method.encoder.parameters() if p.requires_grad]
        again = objectives.mas_penalty(weights, list(method.anchor), list(method.omega), weight=3.0)
        assert found["mas"].item() == pytest.approx(again.item(), rel=1e-5)
        assert all((w >= 0).all() for w in method.omega)
        assert sum(float(w.sum()) for w in method.omega) > 0
    assert method.validate({"views": [x]}).keys() == {"loss"}
    state = method.state_dict()
    again = made(regulariser=regulariser)
    again.load_state_dict(state)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"regulariser": "mas"}, {"continual": "er"}, {"continual": "gdumb"}])
def test_a_stream_of_two_folders_goes_through_every_job(options: dict, tmp_path: Path) -> None:
    run = selftaught.train(
        "infinite-lr", "digits", then=["digits?n=300"], out=str(tmp_path / "run"), preset="laptop", steps=4,
        batch_size=16, workers=0, quiet=True, knn_every=0, loggers=["none"], **TINY, **options,
    )  # fmt: skip
    found = json.loads((tmp_path / "run/forgetting.json").read_text())
    assert len(found["rows"]) == 2
    assert len(found["rows"][1]["loss"]) == 2
    assert run.evaluate(protocols=["knn"])["knn"]["this"]["accuracy"].mean > 0.1
    assert run.export("safetensors", tmp_path / "exported").exists()
