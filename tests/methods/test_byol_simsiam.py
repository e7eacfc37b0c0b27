"""BYOL and SimSiam as wired: their loss is the formula of their own embeddings, gradients stop where they must."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from torch import nn

import selftaught
from selftaught import methods
from tests.conftest import TINY
from tests.methods.learning import PHOTOS, waves

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "projector": "24-12", "predictor": "20", "augment": "small"}


def batch_for(method, n: int = 10, channels: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randint(0, 256, (n, channels, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2)]
    batch = method.on_after_batch_transfer({"views": views, "index": torch.arange(n)})
    batch["views"] = [view.to(next(method.parameters()).dtype) for view in batch["views"]]
    return batch


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = (t.detach().double().numpy() for t in (a, b))
    return float(np.mean((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def lagging_byol(**options) -> methods.BYOL:
    """A BYOL whose momentum copy differs from the trained network."""
    torch.manual_seed(0)
    method = methods.BYOL(**SMALL | options).double()
    with torch.no_grad():
        for parameter in method.momentum.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return method


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("one_forward", [True, False])
def test_byol_method_predicts_the_copys_projection_of_the_other_view(symmetric: bool, one_forward: bool) -> None:
    method = lagging_byol(channels=4, symmetric=symmetric, one_forward=one_forward)
    batch = batch_for(method, channels=4)
    terms = method.loss(batch)
    z = method.embed_views(batch["views"])
    targets = method.embed_views(batch["views"], method.target)
    p1, p2 = (method.predictor(each) for each in z)
    expected = 2 - 2 * cosine(p1, targets[1]) + (2 - 2 * cosine(p2, targets[0]) if symmetric else 0)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-9)
    unit = (z[0] / z[0].norm(dim=1, keepdim=True)).detach().numpy()
    assert terms["spread"].item() == pytest.approx(math.sqrt(12) * unit.std(0).mean(), rel=1e-9)
    assert (targets[0] - z[0]).abs().max() > 1e-3


def test_byols_gradient_reaches_the_online_network_and_never_the_copy() -> None:
    method = lagging_byol()
    method.loss(batch_for(method))["loss"].backward()
    for module in (method.encoder, method.projector, method.predictor):
        assert all(p.grad is not None for p in module.parameters())
        assert any(p.grad.abs().sum() > 0 for p in module.parameters())
    assert all(p.grad is None for p in method.momentum.parameters())
    optimised = {id(p) for group in method.parameter_groups(1.0) for p in group["params"]}
    assert not optimised & {id(p) for p in method.momentum.parameters()}
    assert {id(p) for p in method.predictor.parameters()} <= optimised


def test_byols_copy_moves_towards_the_network_after_a_step() -> None:
    method = lagging_byol(target_decay=0.9, target_schedule="constant")
    before = [p.clone() for p in method.momentum.parameters()]
    online = list(method.encoder.parameters()) + list(method.projector.parameters())
    method.after_step()
    for old, now, theta in zip(before, method.momentum.parameters(), online, strict=True):
        torch.testing.assert_close(now, 0.9 * old + 0.1 * theta.detach(), rtol=1e-7, atol=1e-9)


def test_byol_without_predictor_compares_projections() -> None:
    method = lagging_byol(predictor="none")
    assert isinstance(method.predictor, nn.Identity)
    batch = batch_for(method)
    z1, z2 = method.embed_views(batch["views"])
    t1, t2 = method.embed_views(batch["views"], method.target)
    expected = 4 - 2 * cosine(z1, t2) - 2 * cosine(z2, t1)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-9)


def test_byols_networks_and_unequal_views() -> None:
    method = methods.BYOL(**SMALL | {"augment": "paper", "predictor": "20-18"})
    assert [m.out_features for m in method.predictor if isinstance(m, nn.Linear)] == [20, 18, 12]
    first, second = method.views()
    assert any("Solarize" in repr(op) for op in second.ops)
    assert not any("Solarize" in repr(op) for op in first.ops)


@pytest.mark.parametrize("similarity", ["cosine", "cross-entropy"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_simsiam_method_predicts_the_other_views_projection(similarity: str, symmetric: bool) -> None:
    method = methods.SimSiam(channels=4, similarity=similarity, symmetric=symmetric, **SMALL).double()
    batch = batch_for(method, channels=4)
    terms = method.loss(batch)
    z1, z2 = method.embed(batch)
    p1, p2 = method.predictor(z1), method.predictor(z2)

    def distance(p: torch.Tensor, z: torch.Tensor) -> float:
        if similarity == "cosine":
            return -cosine(p, z)
        return -(z.softmax(1) * p.log_softmax(1)).sum(1).mean().item()

    expected = (distance(p1, z2) + distance(p2, z1)) / 2 if symmetric else distance(p1, z2)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-9)
    assert 0 < terms["spread"].item() <= 1


def test_simsiams_stop_gradient_is_what_the_option_says() -> None:
    torch.manual_seed(0)
    method = methods.SimSiam(**SMALL).double()
    batch, gradients = batch_for(method), {}
    for stop in (True, False):
        method.config.stop_gradient = stop
        method.zero_grad()
        method.loss(batch)["loss"].backward()
        gradients[stop] = method.projector[0].weight.grad.clone()
        assert all(p.grad is not None for p in method.parameters())
    z1, z2 = method.embed(batch)
    method.zero_grad()
    held = [z.detach() for z in (z2, z1)]
    pairs = zip((method.predictor(z1), method.predictor(z2)), held, strict=True)
    (-sum(torch.cosine_similarity(p, z).mean() for p, z in pairs) / 2).backward()
    torch.testing.assert_close(gradients[True], method.projector[0].weight.grad, rtol=1e-6, atol=1e-12)
    assert (gradients[True] - gradients[False]).abs().max() > 1e-3 * gradients[True].abs().max()


def test_simsiams_networks_and_views() -> None:
    method = methods.SimSiam(**SMALL | {"augment": "paper", "projector": "24-24-12"})
    linears = [m for m in method.projector if isinstance(m, nn.Linear)]
    assert all(m.bias is None for m in linears)
    assert isinstance(method.projector[-1], nn.BatchNorm1d)
    assert not method.projector[-1].affine
    assert method.predictor[-1].bias is not None
    assert [m.out_features for m in method.predictor if isinstance(m, nn.Linear)] == [20, 12]
    first, second = method.views()
    assert first.ops == second.ops
    assert any("GaussianBlur" in repr(op) for op in first.ops)
    assert isinstance(methods.SimSiam(**SMALL | {"predictor": "none"}).predictor, nn.Identity)


def test_simsiams_parameter_groups() -> None:
    method = methods.SimSiam(**SMALL)
    rest, predictor = method.parameter_groups(0.1)
    assert predictor["constant"]
    assert "constant" not in rest
    assert {id(p) for p in predictor["params"]} == {id(p) for p in method.predictor.parameters()}
    assert rest["weight_decay"] == predictor["weight_decay"] == 1e-4
    apart = methods.SimSiam(decay_all=False, predictor_rate="scheduled", **SMALL).parameter_groups(0.1)
    assert [group["weight_decay"] for group in apart] == [1e-4, 0.0, 1e-4, 0.0]
    assert not any(group.get("constant") for group in apart)
    frozen = methods.SimSiam(predictor_rate="frozen", **SMALL)
    held = {id(p) for p in frozen.predictor.parameters()}
    assert not held & {id(p) for group in frozen.parameter_groups(0.1) for p in group["params"]}


@pytest.mark.slow
def test_simsiams_predictor_keeps_its_rate_while_the_rest_decays(tmp_path) -> None:
    options = TINY | {"augment": "grey", "predictor": "8", "warmup_epochs": 0.5, "decay_all": True, "lr": 1e-3}
    run = selftaught.train("simsiam", "digits", out=str(tmp_path / "run"), **options)
    state = torch.load(run.path / "checkpoints/train.ckpt", weights_only=True)
    rest, predictor = state["optimizer_states"][0]["param_groups"]
    assert rest["lr"] == pytest.approx(0, abs=1e-9)
    assert predictor["lr"] == predictor["initial_lr"] == pytest.approx(1e-3 * 32 / 256)


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["byol", "simsiam"])
def test_a_killed_run_resumes_bit_identically(slug: str, tmp_path, monkeypatch) -> None:
    options = TINY | {"augment": "grey", "checkpoint_steps": 5, "predictor": "16"}
    whole = selftaught.train(slug, "digits", out=str(tmp_path / "whole"), **options)
    kind = methods.get(slug)
    real = kind.after_step

    def power_cut(self) -> None:
        real(self)
        if self.steps == 8:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(kind, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train(slug, "digits", out=str(tmp_path / "cut"), **options)
    assert torch.load(tmp_path / "cut/checkpoints/train.ckpt", weights_only=True)["global_step"] == 5
    selftaught.train(slug, resume=tmp_path / "cut", quiet=True)
    paths = [folder / "checkpoints/train.ckpt" for folder in (whole.path, tmp_path / "cut")]
    states = [torch.load(path, weights_only=True) for path in paths]
    assert all(torch.equal(value, states[1]["state_dict"][name]) for name, value in states[0]["state_dict"].items())
    rates = [[group["lr"] for group in state["optimizer_states"][0]["param_groups"]] for state in states]
    assert rates[0] == rates[1]


@pytest.mark.slow
@pytest.mark.parametrize(("slug", "start", "end", "spread"), [("byol", 4.0, 1.3, 0.6), ("simsiam", 0.0, -0.6, 0.9)])
def test_it_learns_to_predict_the_other_view_and_does_not_collapse(
    slug: str, start: float, end: float, spread: float, tmp_path
) -> None:
    """On waves, without BatchNorm in the encoder. In 60 steps neither raises a k-NN over the untrained network's."""
    options = PHOTOS | {"crop": 0.5, "steps": 60, "log_every": 1}
    run = selftaught.train(slug, waves(), out=str(tmp_path / "run"), **options)
    with run.layout.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["loss"]) == pytest.approx(start, abs=0.2)
    assert np.mean([float(row["loss"]) for row in rows[-5:]]) < end
    assert min(float(row["spread"]) for row in rows) > spread
