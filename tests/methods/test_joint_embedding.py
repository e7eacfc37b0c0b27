"""SimCLR, DCL and Barlow Twins as wired: their loss is the sheet's formula of their own embeddings, and they learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught import methods
from tests.methods.learning import assert_learns_photographs, assert_learns_waves

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "projector": "24-12", "augment": "small"}


def batch_for(method, n: int = 10, channels: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randint(0, 256, (n, channels, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2)]
    return method.on_after_batch_transfer({"views": views, "index": torch.arange(n)})


def literal_infonce(z1: np.ndarray, z2: np.ndarray, tau: float, *, positive: bool) -> list[float]:
    """Per anchor of both directions, by loops in float64 (dcl sheet)."""
    rows, found = len(z1), []
    for a, b in ((z1, z2), (z2, z1)):
        for i in range(rows):
            total = sum(math.exp(a[i] @ v[j] / tau) for v in (a, b) for j in range(rows) if j != i)
            s = a[i] @ b[i] / tau
            found.append(-s + math.log(total + (math.exp(s) if positive else 0.0)))
    return found


@pytest.mark.parametrize("objective", ["dcl", "infonce"])
def test_dcl_method_is_the_sheets_loss_of_normalised_projections(objective: str) -> None:
    method = methods.DCL(objective=objective, temperature=0.3, **SMALL).double()
    batch = batch_for(method)
    batch["views"] = [view.double() for view in batch["views"]]
    z1, z2 = (torch.nn.functional.normalize(z).detach().numpy() for z in method.embed(batch))
    found = literal_infonce(z1, z2, 0.3, positive=objective == "infonce")
    expected = sum(found) / len(z1)  # mean over i, sum of directions
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_simclr_method_is_nt_xent_and_one_forward_mixes_batchnorm_statistics() -> None:
    method = methods.SimCLR(temperature=0.3, **SMALL).double()
    batch = batch_for(method)
    batch["views"] = [view.double() for view in batch["views"]]
    z1, z2 = (torch.nn.functional.normalize(z).detach().numpy() for z in method.embed(batch))
    found = literal_infonce(z1, z2, 0.3, positive=True)
    assert method.loss(batch)["loss"].item() == pytest.approx(sum(found) / len(found), rel=1e-5)
    method.config.one_forward = False
    apart, _ = method.embed(batch)
    assert not np.allclose(torch.nn.functional.normalize(apart).detach().numpy(), z1, atol=1e-3)


def test_barlow_method_forwards_views_apart_and_its_ablations_stop_what_they_say() -> None:
    method = methods.BarlowTwins(**SMALL | {"projector": "24-24-12"})
    batch = batch_for(method)
    z1, z2 = method.embed(batch)
    a, b = (((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()).detach().double().numpy() for z in (z1, z2))
    c = a.T @ b / len(a)
    off = (c**2).sum() - (np.diag(c) ** 2).sum()
    expected = ((1 - np.diag(c)) ** 2).sum() + method.config.lambda_ * off
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-4)
    assert not any(getattr(m, "bias", None) is not None for m in method.projector if isinstance(m, torch.nn.Linear))
    stopped = methods.BarlowTwins(stop_grad=True, predictor=True, **SMALL | {"projector": "24-24-12"})
    z2 = torch.randn(8, 12, requires_grad=True)
    stopped.objective(torch.randn(8, 12, requires_grad=True), z2)["loss"].backward()
    assert z2.grad is None


def test_barlow_optimises_biases_at_their_own_rate_without_decay() -> None:
    method = methods.BarlowTwins(**SMALL | {"projector": "24-24-12"})
    groups = method.parameter_groups(1.6)
    assert [group["lr"] for group in groups] == pytest.approx([1.6, 1.6 * 0.0048 / 0.2])
    assert [group["weight_decay"] for group in groups] == [1e-6, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim <= 1 for p in groups[1]["params"])


def test_uint8_views_are_normalised_by_the_runs_statistics() -> None:
    method = methods.SimCLR(channels=2, **SMALL)
    method.pixel_mean.copy_(torch.tensor([0.25, 0.5]))
    method.pixel_std.copy_(torch.tensor([0.1, 0.2]))
    image = torch.randint(0, 256, (3, 2, 5, 5), dtype=torch.uint8)
    expected = (image.double() / 255 - torch.tensor([0.25, 0.5])[:, None, None]) / torch.tensor([0.1, 0.2])[
        :, None, None
    ]
    torch.testing.assert_close(method.normalise(image).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(method.normalise(image.float() / 255).double(), expected, rtol=1e-4, atol=1e-4)


def test_a_projector_of_any_depth_and_the_embedding_is_before_it() -> None:
    method = methods.SimCLR(**SMALL | {"projector": "40-30-20"}).eval()
    batch = batch_for(method)
    assert method.predict(batch).shape == (10, method.encoder.dim)
    assert method.embed(batch)[0].shape == (10, 20)


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["simclr", "dcl", "barlow-twins"])
def test_it_learns_photographs(slug: str, tmp_path) -> None:
    if slug == "barlow-twins":
        assert_learns_photographs(slug, tmp_path / "run", margin=0.02)
    else:
        assert_learns_waves(slug, tmp_path / "run")
