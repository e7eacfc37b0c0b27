"""MAE as wired: its loss is the formula, every option trains all it has, a run goes from a folder to a report."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import selftaught
from selftaught import methods, objectives
from selftaught.errors import UserError
from selftaught.networks import build
from selftaught.networks.tokens import patchify
from tests.methods.resuming import cut_and_whole

TINY = {"encoder": "vit-nano", "image_size": 28, "patch": 4, "decoder": "16-1-2"}


def made(**options):
    torch.manual_seed(0)
    return methods.MAE(channels=1, **TINY | options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_pix": False, "pool": "avg"},
        {"mask": "block", "mask_ratio": 0.4},
        {"mask": "grid"},
        {"positions": "learnt", "decoder": "96-1-3", "decoder_project": False},
    ],
)
def test_the_loss_is_the_formula_and_all_weights_learn(options: dict) -> None:
    method = made(**options)
    x = torch.randn(3, 1, 28, 28)
    torch.manual_seed(7)
    found = method.loss({"views": [x]})["loss"]
    torch.manual_seed(7)
    prediction, hidden = method.restore(x, method.visible(3, x.device))
    share = {"block": 19 / 49, "grid": 33 / 49}.get(str(options.get("mask")), 37 / 49)
    assert hidden.float().mean().item() == pytest.approx(share)
    patches = patchify(x, (4, 4), channels_last=True)
    expected = objectives.mae(prediction, patches, hidden, norm_pix=method.config.norm_pix)
    assert found.item() == pytest.approx(expected.item())
    found.backward()
    idle = {name for name, p in method.named_parameters() if p.requires_grad and p.grad is None}
    assert not idle
    again = build(method.deliverable_spec())
    again.load_state_dict(method.deliverable().state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(x), method.eval().predict({"views": [x]}))


def test_pictures_show_the_visible_and_the_restored() -> None:
    method, x = made(), torch.randn(2, 1, 28, 28)
    found = method.pictures(x)
    assert list(found) == ["visible", "restored", "original"]
    seen = found["visible"] != 0
    assert seen.float().mean().item() == pytest.approx(12 / 49, abs=0.01)
    assert torch.equal(found["visible"][seen], x[seen])
    assert torch.equal(found["restored"][seen], x[seen])
    assert not torch.equal(found["restored"], x)


def test_what_makes_no_sense_is_refused() -> None:
    for options, message in (
        ({"encoder": "resnet18"}, "hides tokens"),
        ({"patch": 5}, "multiple of patch"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"decoder_project": False}, "encoder's width 96"),
        ({"decoder": "16-1"}, "width, blocks and heads"),
        ({"pretrained": True}, "no pretrained weights"),
    ):
        with pytest.raises(UserError, match=message):
            made(**options)


@pytest.mark.slow
def test_it_learns_to_restore_what_the_visible_patches_tell() -> None:
    """Every image repeats one random patch: the mean predictor errs by the variance, MAE by much less."""
    method = made(image_size=8, patch=2, decoder="32-1-4", norm_pix=False)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=2e-3, betas=(0.9, 0.95))
    losses = []
    for _ in range(80):
        x = torch.randn(32, 1, 2, 2).repeat(1, 1, 4, 4)
        loss = method.loss({"views": [x]})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.4


@pytest.mark.slow
def test_a_run_shows_what_it_restores(tmp_path: Path) -> None:
    options = TINY | {"image_size": 8, "patch": 2, "steps": 4, "batch_size": 32, "workers": 0, "knn_every": 0}
    run = selftaught.train("mae", "digits", out=str(tmp_path / "run"), preset="laptop", quiet=True, **options)
    run.evaluate(protocols=["knn"])
    assert "What the model makes of it" in run.report().read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    options = TINY | {"image_size": 8, "patch": 2, "steps": 10, "batch_size": 64, "preset": "laptop", "knn_every": 0}
    whole, cut = cut_and_whole("mae", tmp_path, options | {"workers": 0, "quiet": True})
    assert all(torch.equal(torch.as_tensor(whole[name]), torch.as_tensor(cut[name])) for name in whole)
