import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selftaught.errors import UserError
from selftaught.objectives import (
    barlow_twins,
    barlow_twins_terms,
)


def pair(rows=12, width=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    z1 = torch.randn(rows, width, generator=g, dtype=torch.float64) * torch.linspace(0.5, 3, width) + 1
    return z1, z1 + 0.7 * torch.randn(rows, width, generator=g, dtype=torch.float64)


def literal(z1, z2, lambda_, normalize="batch", hsic=False, centre_only=False):
    """The sheet's double sum over the entries of C; returns both terms."""
    rows, width = z1.shape

    def standardised(values):
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        return [(v - mean) / (1 if centre_only else math.sqrt(variance + 1e-5)) for v in values]

    def prepared(z):
        if normalize == "none":
            return z.tolist()
        if normalize == "feature":
            return [standardised(row) for row in z.tolist()]
        return list(zip(*[standardised(column) for column in z.T.tolist()], strict=True))

    a, b = prepared(z1), prepared(z2)
    invariance = redundancy = 0.0
    for i in range(width):
        for j in range(width):
            c = sum(a[n][i] * b[n][j] for n in range(rows)) / rows
            if i == j:
                invariance += (1 - c) ** 2
            else:
                redundancy += (c + 1) ** 2 if hsic else c**2
    return invariance, redundancy


@pytest.mark.parametrize("shape", [(12, 5), (6, 12), (3, 17), (2, 1), (4, 8)], ids=str)
@pytest.mark.parametrize("normalize", ["batch", "feature", "none"])
@pytest.mark.parametrize("hsic", [False, True])
@pytest.mark.parametrize("centre_only", [False, True])
def test_equals_the_formula_entry_by_entry(shape, normalize, hsic, centre_only):
    z1, z2 = pair(*shape)
    named = barlow_twins_terms(
        z1, z2, lambda_=0.02, normalize=normalize, hsic=hsic, centre_only=centre_only, loss_scale=0.1
    )
    invariance, redundancy = literal(z1, z2, 0.02, normalize, hsic, centre_only)
    assert named["invariance"].item() == pytest.approx(invariance, rel=1e-9, abs=1e-11)
    assert named["redundancy"].item() == pytest.approx(redundancy, rel=1e-9, abs=1e-11)
    assert named["loss"].item() == pytest.approx(0.1 * (invariance + 0.02 * redundancy), rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("shape", [(16, 6), (6, 16)], ids=["tall", "wide"])
@pytest.mark.parametrize("hsic", [False, True])
def test_gradient_of_both_ways_to_sum_equals_that_of_the_matrix(shape, hsic):
    a1, b1 = (t.clone().requires_grad_() for t in pair(*shape))
    a2, b2 = (t.clone().requires_grad_() for t in pair(*shape))
    barlow_twins(a1, b1, lambda_=0.3, hsic=hsic).backward()
    a, b = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (a2, b2))
    c, eye = a.T @ b / len(a), torch.eye(shape[1], dtype=torch.float64)
    weights = eye + 0.3 * (1 - eye)
    (weights * (c - eye + (1 - eye) * hsic).square()).sum().backward()
    torch.testing.assert_close(a1.grad, a2.grad, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(b1.grad, b2.grad, rtol=1e-9, atol=1e-10)


def test_the_terms_alone():
    z1, z2 = pair()
    named = barlow_twins_terms(z1, z2)
    for terms, expected in (("invariance", named["invariance"]), ("redundancy", 0.0051 * named["redundancy"])):
        assert barlow_twins(z1, z2, terms=terms).item() == pytest.approx(expected.item(), rel=1e-12)
    assert barlow_twins(z1, z2).item() == pytest.approx((named["invariance"] + 0.0051 * named["redundancy"]).item())


def test_decorrelated_equal_opposite_and_constant_views():
    g = torch.Generator().manual_seed(0)
    design = torch.randn(40, 6, generator=g, dtype=torch.float64)
    z = torch.linalg.qr(design - design.mean(0)).Q * 100  # centred, orthogonal columns; large, so that eps is nothing
    assert barlow_twins(z, z, lambda_=1.0).item() == pytest.approx(0, abs=1e-6)
    assert barlow_twins_terms(z, -z)["invariance"].item() == pytest.approx(4 * 6, abs=1e-5)
    assert barlow_twins(z, torch.ones_like(z)).item() == pytest.approx(6, abs=1e-12)


def test_one_feature_is_pearsons_correlation():
    z1, z2 = (100 * t for t in pair(20, 1))
    correlation = np.corrcoef(z1[:, 0].numpy(), z2[:, 0].numpy())[0, 1]
    assert barlow_twins(z1, z2).item() == pytest.approx((1 - correlation) ** 2, abs=1e-8)


def test_invariances():
    z1, z2 = (100 * t for t in pair())
    reference = barlow_twins(z1, z2).item()
    scale, shift = torch.linspace(0.5, 4, 5, dtype=torch.float64), torch.arange(5, dtype=torch.float64)
    assert barlow_twins(z1 * scale + shift, z2).item() == pytest.approx(reference, rel=1e-6)
    assert barlow_twins(z2, z1).item() == pytest.approx(reference, rel=1e-12)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert barlow_twins(z1[:, order], z2[:, order]).item() == pytest.approx(reference, rel=1e-12)
    assert abs(barlow_twins(z1[:, order], z2).item() - reference) > 0.5


def test_gradient_is_centred_and_orthogonal_to_the_column():
    z1, z2 = pair(30, 6)
    z1.requires_grad_()
    barlow_twins(z1, z2).backward()
    centred = z1.detach() - z1.detach().mean(0)
    assert z1.grad.abs().max() > 1e-3
    assert z1.grad.sum(0).abs().max() < 1e-10
    assert (z1.grad * centred).sum(0).abs().max() < 1e-4


def test_a_dead_feature_adds_one_and_no_nan():
    z1, z2 = pair()
    alive = barlow_twins_terms(z1[:, 1:], z2[:, 1:])["loss"].item()
    z1[:, 0] = z2[:, 0] = 3.0
    z1.requires_grad_()
    loss = barlow_twins(z1, z2)
    loss.backward()
    assert loss.item() == pytest.approx(alive + 1, abs=1e-10)
    assert z1.grad.isfinite().all()


def test_the_deviation_is_the_biased_one():
    g = torch.Generator().manual_seed(0)
    z = 1000 * torch.randn(4, 1, generator=g, dtype=torch.float64)
    assert barlow_twins(z, z).item() < 1e-12  # the unbiased one would leave D/N^2 = 1/16


@pytest.mark.parametrize("shape", [(40, 16), (8, 64)], ids=["tall", "wide"])
def test_float32_under_autocast(shape):
    z1, z2 = (t.float() for t in pair(*shape))
    expected = barlow_twins(z1, z2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, half = barlow_twins(z1, z2), barlow_twins(z1.bfloat16(), z2.bfloat16())
    assert under.dtype == half.dtype == torch.float32
    assert torch.equal(under, expected)
    assert expected.item() == pytest.approx(barlow_twins(z1.double(), z2.double()).item(), rel=1e-4)


def test_a_wide_projector_makes_no_square_matrix():
    z1, z2 = (torch.randn(16, 4096, requires_grad=True) for _ in range(2))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        barlow_twins(z1, z2).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 4096 * 4096 * 4 / 16


def test_wrong_input_is_refused():
    z1, z2 = pair()
    with pytest.raises(ValueError, match="at least 2"):
        barlow_twins(z1[:1], z2[:1])
    with pytest.raises(UserError, match="one shape"):
        barlow_twins(z1, z2[:, :4])
    with pytest.raises(UserError, match="normalize"):
        barlow_twins(z1, z2, normalize="row")
    with pytest.raises(UserError, match="terms"):
        barlow_twins(z1, z2, terms="all")
    z1[0, 0] = math.nan
    assert barlow_twins(z1, z2).isnan()


@pytest.mark.slow
def test_both_terms_together_prevent_collapse():
    torch.manual_seed(0)
    x = torch.randn(512, 6) @ torch.randn(6, 24)
    ranks = {}
    for terms in ("both", "invariance"):
        torch.manual_seed(1)
        net = torch.nn.Sequential(torch.nn.Linear(24, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32))
        optimiser = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(300):
            z1, z2 = (net(x + 0.5 * torch.randn_like(x)) for _ in range(2))
            optimiser.zero_grad()
            barlow_twins(z1, z2, lambda_=0.02, terms=terms).backward()
            optimiser.step()
        correlation = torch.corrcoef(net(x).detach().T)
        ranks[terms] = (correlation.trace() ** 2 / correlation.square().sum()).item()
    assert ranks["both"] > 2 * ranks["invariance"]
    assert F.relu(torch.tensor(ranks["invariance"] - 1)) < 6
