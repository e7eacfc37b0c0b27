import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selftaught.errors import UserError
from selftaught.objectives import (
    barlow_twins,
    barlow_twins_terms,
    vicreg,
    vicreg_terms,
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


# ---- VICReg ---------------------------------------------------------------------------------------------------------
def literal_vicreg(z1, z2, eps=1e-4, gamma=1.0):
    """Invariance, variance (sum over views) and covariance by loops."""
    rows, width = z1.shape
    invariance = sum((z1[n, d].item() - z2[n, d].item()) ** 2 for n in range(rows) for d in range(width))
    spread = repetition = 0.0
    for z in (z1.tolist(), z2.tolist()):
        means = [sum(row[d] for row in z) / rows for d in range(width)]
        for i in range(width):
            for j in range(width):
                cov = sum((row[i] - means[i]) * (row[j] - means[j]) for row in z) / (rows - 1)
                if i == j:
                    spread += max(0.0, gamma - math.sqrt(cov + eps)) / width
                else:
                    repetition += cov**2 / width
    return invariance / (rows * width), spread, repetition


@pytest.mark.parametrize("shape", [(12, 5), (6, 13), (4, 8), (2, 1)], ids=str)
@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_vicreg_equals_the_formula_entry_by_entry(shape, scale):
    z1, z2 = (scale * z for z in pair(*shape))
    invariance, spread, repetition = literal_vicreg(z1, z2)
    named = vicreg_terms(z1, z2)
    assert named["invariance"].item() == pytest.approx(invariance, rel=1e-11)
    assert named["variance"].item() == pytest.approx(spread, rel=1e-11, abs=1e-13)
    assert named["covariance"].item() == pytest.approx(repetition, rel=1e-9, abs=1e-12)
    assert vicreg(z1, z2).item() == pytest.approx(25 * invariance + 25 * spread + repetition, rel=1e-10)
    other = vicreg(z1, z2, invariance=3, variance=5, covariance=7, std_reduction="mean").item()
    assert other == pytest.approx(3 * invariance + 5 * spread / 2 + 7 * repetition, rel=1e-10)
    _, wider, _ = literal_vicreg(z1, z2, eps=0.01, gamma=2.0)
    assert vicreg_terms(z1, z2, eps=0.01, gamma=2.0)["variance"].item() == pytest.approx(wider, rel=1e-11)


def test_vicreg_of_constant_and_of_perfect_embeddings():
    z = torch.full((9, 6), 3.0, dtype=torch.float64, requires_grad=True)
    loss = vicreg(z, z)
    loss.backward()
    assert loss.item() == pytest.approx(25 * 2 * (1 - 0.01), abs=1e-12)
    assert z.grad.isfinite().all()
    design = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    white = torch.linalg.qr(design - design.mean(0)).Q * math.sqrt(39)
    assert vicreg(white, white).item() == pytest.approx(0, abs=1e-20)
    assert vicreg(2 * white, 2 * white).item() == pytest.approx(0, abs=1e-20)  # a wider spread costs nothing
    assert vicreg(0.5 * white, 0.5 * white).item() == pytest.approx(50 * (1 - math.sqrt(0.2501)), rel=1e-9)


def test_vicreg_ignores_a_common_shift_and_orders_but_not_the_scale():
    z1, z2 = pair()
    reference = vicreg(z1, z2).item()
    assert vicreg(z1 + 5, z2 + 5).item() == pytest.approx(reference, rel=1e-11)
    assert vicreg(z2, z1).item() == pytest.approx(reference, rel=1e-12)
    assert vicreg(z1.flip(0), z2.flip(0)).item() == pytest.approx(reference, rel=1e-12)
    assert vicreg(z1.flip(1), z2.flip(1)).item() == pytest.approx(reference, rel=1e-12)
    assert abs(vicreg(2 * z1, 2 * z2).item() - reference) > 1
    assert vicreg_terms(z1 + 5, z2)["covariance"].item() == pytest.approx(vicreg_terms(z1, z2)["covariance"].item())


@pytest.mark.parametrize("shape", [(7, 3), (3, 8)], ids=["tall", "wide"])
def test_vicreg_gradients_by_finite_differences(shape):
    z1, z2 = (0.4 * z for z in pair(*shape))
    assert torch.autograd.gradcheck(vicreg, (z1.requires_grad_(), z2.requires_grad_()), atol=1e-6)


def test_vicreg_weights_of_zero_switch_gradients_off():
    z1, z2 = pair()
    z = z1.clone().requires_grad_()
    vicreg(z, z, variance=0.0, covariance=0.0).backward()
    assert not z.grad.any()
    vicreg(z, z2, invariance=0.0, variance=0.0).backward()
    assert z.grad.abs().max() > 1e-3
    assert z.grad.sum(0).abs().max() < 1e-12  # the covariance doesn't see the mean


@pytest.mark.parametrize("shape", [(40, 16), (8, 64)], ids=["tall", "wide"])
def test_vicreg_in_float32_under_autocast(shape):
    z1, z2 = pair(*shape)
    expected = vicreg(z1, z2).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, half = vicreg(z1.float(), z2.float()), vicreg(z1.bfloat16(), z2.bfloat16())
    assert under.dtype == half.dtype == torch.float32
    assert under.item() == pytest.approx(expected, rel=1e-5)
    assert half.item() == pytest.approx(expected, rel=0.02)


def test_vicreg_refuses_wrong_input():
    z1, z2 = pair()
    with pytest.raises(UserError, match="at least 2"):
        vicreg(z1[:1], z2[:1])
    with pytest.raises(UserError, match="one shape"):
        vicreg(z1, z2[:, :4])
    with pytest.raises(UserError, match="std_reduction"):
        vicreg(z1, z2, std_reduction="max")
    with pytest.raises(UserError, match="eps must be above 0"):
        vicreg(z1, z2, eps=0.0)
    z1[0, 0] = math.nan
    assert vicreg(z1, z2).isnan()
