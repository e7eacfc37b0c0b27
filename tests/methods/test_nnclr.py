"""NNCLR as wired: the loss of its own neighbours and predictions, the queue, its stops, resuming, learning."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

import selftaught
from selftaught import methods
from tests.conftest import TINY
from tests.methods.learning import assert_learns_photographs
from tests.methods.test_moco import batch_for

SMALL = {
    "encoder": "resnet10-narrow", "image_size": 16, "projector": "24-24-12", "predictor": "20", "augment": "small",
    "queue": 50,
}  # fmt: skip


def literal(neighbours, predictions, tau: float, positive: bool) -> float:
    n, p = (normalize(t.detach().double()) for t in (neighbours, predictions))
    total = 0.0
    for i in range(len(n)):
        scores = [math.exp(n[i] @ other / tau) for other in p]
        total -= math.log(scores[i] / sum(s for j, s in enumerate(scores) if positive or j != i))
    return total / len(n)


@pytest.mark.parametrize("objective", ["infonce", "dcl"])
def test_nnclr_is_the_formula_of_its_own_neighbours_and_predictions(objective: str) -> None:
    method = methods.NNCLR(objective=objective, temperature=0.3, **SMALL)
    batch = batch_for(method)
    z1, z2 = method.embed(batch)
    p1, p2 = method.predictor(z1), method.predictor(z2)
    queue = method.queue.items.clone()
    near = [torch.stack([max(queue, key=lambda n: float(row @ n)) for row in normalize(z.detach())]) for z in (z1, z2)]
    expected = sum(literal(n, p, 0.3, objective == "infonce") for n, p in zip(near, (p2, p1), strict=True)) / 2
    terms = method.loss(batch)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)
    similarity = sum(float(a @ b) for a, b in zip(normalize(z1.detach()), near[0], strict=True)) / 10
    assert terms["neighbour_similarity"].item() == pytest.approx(similarity, rel=1e-5)
    # Only the first view's projections enter the queue, after the search, as unit vectors.
    torch.testing.assert_close(method.queue.items[:10], normalize(z1.detach()))
    assert torch.equal(method.queue.items[10:], queue[10:])


def test_one_direction_alone() -> None:
    method = methods.NNCLR(symmetric=False, **SMALL)
    batch = batch_for(method)
    z1, z2 = method.embed(batch)
    near = method.queue.items[(normalize(z1) @ method.queue.items.T).argmax(1)].clone()
    expected = literal(near, method.predictor(z2), 0.1, True)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mask", ["none", "image"])
def test_an_image_is_its_own_neighbour_unless_masked(mask: str) -> None:
    method = methods.NNCLR(mask=mask, **SMALL)
    batch = batch_for(method)
    method.loss(batch)
    similarity = method.loss(batch)["neighbour_similarity"].item()
    if mask == "none":
        assert similarity == pytest.approx(1, abs=1e-5)  # the same weights and views once more
    else:
        assert similarity < 0.999
        assert method.queue.labels[:20].tolist() == 2 * batch["index"].tolist()


def test_gradient_reaches_all_three_networks_and_no_neighbour() -> None:
    method = methods.NNCLR(**SMALL)
    method.loss(batch_for(method))["loss"].backward()
    for network in (method.encoder, method.projector, method.predictor):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert not any(name.startswith("queue") for name, _ in method.named_parameters())
    assert isinstance(method.projector[-1], torch.nn.BatchNorm1d)
    assert isinstance(method.predictor[-1], torch.nn.Linear)


def test_four_channels_series_and_a_queue_of_half_the_data() -> None:
    method = methods.NNCLR(channels=4, samples=30, **SMALL)
    assert len(method.queue) == 15
    batch = batch_for(method, channels=4)
    assert method.loss(batch)["loss"].isfinite()
    assert method.eval().predict(batch).shape == (10, method.encoder.dim)
    options = SMALL | {"encoder": "resnet1d"}
    series = methods.NNCLR(length=64, **options)
    assert series.loss({"series": torch.randn(6, 3, 64), "index": torch.arange(6)})["loss"].isfinite()


@pytest.mark.slow
def test_the_queue_is_part_of_a_checkpoint(tmp_path: Path) -> None:
    options = TINY | {"queue": 40, "mask": "image", "augment": "grey", "steps": 3, "loggers": ["none"]}
    run = selftaught.train("nnclr", "digits", out=str(tmp_path / "run"), **options)
    state = torch.load(run.path / "checkpoints/train.ckpt", weights_only=True)["state_dict"]
    assert state["queue.filled"].item() == 40
    assert (state["queue.labels"] >= 0).all()
    torch.testing.assert_close(state["queue.items"].norm(dim=1), torch.ones(40))


@pytest.mark.slow
def test_it_learns_photographs(tmp_path: Path) -> None:
    assert_learns_photographs("nnclr", tmp_path / "run", lr=0.01)
