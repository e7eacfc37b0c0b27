"""SupCon and supervised training as wired: their formulas on their own outputs, labels, delivery, learning."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

import selftaught
from selftaught import methods
from selftaught.errors import UserError
from tests.conftest import TINY
from tests.methods.learning import assert_learns_photographs
from tests.methods.test_moco import batch_for

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "augment": "small", "classes": 3}
CONTRAST = SMALL | {"projector": "24-12"}


def literal_supcon(views, labels, tau: float, form: str) -> float:
    rows = [normalize(row.detach().double(), dim=0) for view in views for row in view]
    classes = labels.tolist() * len(views)
    losses = []
    for i, z in enumerate(rows):
        below = sum(math.exp(z @ other / tau) for a, other in enumerate(rows) if a != i)
        shares = [math.exp(z @ rows[p] / tau) / below for p in range(len(rows)) if p != i and classes[p] == classes[i]]
        mean = sum(shares) / len(shares) if form == "in" else math.exp(sum(map(math.log, shares)) / len(shares))
        losses.append(-math.log(mean))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("form", ["out", "in"])
@pytest.mark.parametrize("base", [0.0, 0.07])
def test_supcon_is_the_formula_of_its_own_projections(form: str, base: float) -> None:
    method = methods.SupCon(form=form, base_temperature=base, temperature=0.3, **CONTRAST)
    batch = batch_for(method)
    expected = literal_supcon(method.embed(batch), batch["label"], 0.3, form) * (0.3 / base if base else 1)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_supcon_of_distinct_labels_is_simclr() -> None:
    method = methods.SupCon(temperature=0.3, **CONTRAST)
    simclr = methods.SimCLR(temperature=0.3, **CONTRAST)
    simclr.load_state_dict(method.state_dict(), strict=False)
    batch = batch_for(method) | {"label": torch.arange(10)}
    method.projector, simclr.projector = (torch.nn.Identity() for _ in range(2))
    assert method.loss(batch)["loss"].item() == pytest.approx(simclr.loss(batch)["loss"].item(), rel=1e-5)


def test_supervised_is_cross_entropy_of_its_own_logits() -> None:
    for smoothing in (0.0, 0.2):
        method = methods.Supervised(smoothing=smoothing, **SMALL)
        batch = batch_for(method)
        batch["views"] = batch["views"][:1]
        logits = method.classifier(method.encoder(batch["views"][0])).detach().double()
        expected = 0.0
        for row, label in zip(logits.tolist(), batch["label"].tolist(), strict=True):
            log_sum = math.log(sum(map(math.exp, row)))
            target = [smoothing / 3 + (1 - smoothing) * (c == label) for c in range(3)]
            expected -= sum(t * (x - log_sum) for t, x in zip(target, row, strict=True)) / 10
        terms = method.loss(batch)
        assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)
        right = sum(row.index(max(row)) == label for row, label in zip(logits.tolist(), batch["label"], strict=True))
        assert terms["accuracy"].item() == pytest.approx(right / 10)


def test_gradient_reaches_encoder_and_head() -> None:
    for method, head in ((methods.SupCon(**CONTRAST), "projector"), (methods.Supervised(**SMALL), "classifier")):
        method.loss(batch_for(method))["loss"].backward()
        for network in (method.encoder, getattr(method, head)):
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("name", ["SupCon", "Supervised"])
def test_labels_are_needed(name: str) -> None:
    options = {key: value for key, value in SMALL.items() if key != "classes"}
    with pytest.raises(UserError, match="learns from labels"):
        getattr(methods, name)(**options)


def test_views_four_channels_and_series() -> None:
    paper = SMALL | {"augment": "paper", "image_size": 32}
    assert len(methods.Supervised(**SMALL).views()) == len(methods.Supervised(**paper).views()) == 1
    assert len(methods.SupCon(**CONTRAST).views()) == 2
    for kind, options, width in ((methods.SupCon, CONTRAST, None), (methods.Supervised, SMALL, 3)):
        method = kind(channels=4, **options)
        batch = batch_for(method, channels=4)
        assert method.loss(batch)["loss"].isfinite()
        assert method.eval().predict(batch).shape == (10, width or method.encoder.dim)
        assert method.features(batch).shape == (10, method.encoder.dim)
        series = kind(length=64, **options | {"encoder": "resnet1d"})
        batch = {"series": torch.randn(6, 3, 64), "index": torch.arange(6), "label": torch.arange(6) % 3}
        assert series.loss(batch)["loss"].isfinite()


def test_the_rate_falls_by_ten_at_each_third_of_the_papers_run() -> None:
    method = methods.Supervised(**SMALL)
    method.plan(90, 9)
    optim = method.optimisers()["main"]
    assert [optim.factor(step, 90) for step in (0, 29, 30, 59, 60, 89)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.slow
def test_a_supervised_run_classifies(tmp_path: Path) -> None:
    options = TINY | {"augment": "grey", "crop": 0.6, "steps": 120, "lr": 0.03, "loggers": ["none"]}
    options.pop("projector")
    run = selftaught.train("supervised", "digits", out=str(tmp_path / "run"), **options)
    found = run.evaluate(protocols=["classify"])["classify"]["this"]["accuracy"].mean
    assert found > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["supcon", "supervised"])
def test_it_learns_photographs(slug: str, tmp_path: Path) -> None:
    assert_learns_photographs(slug, tmp_path / "run", margin=0.04)
