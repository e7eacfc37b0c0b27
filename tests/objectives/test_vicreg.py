"""VICReg."""

import math

import pytest
import torch

from selftaught.errors import UserError
from selftaught.objectives import (
    vicreg,
    vicreg_terms,
)
from tests.objectives.test_barlow_twins import pair


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
