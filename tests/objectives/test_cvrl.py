"""CVRL's loss against a literal transcription, its limits and its symmetries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError

G = torch.Generator().manual_seed(0)


def literal(z1: np.ndarray, z2: np.ndarray, tau: float, normalise: bool) -> float:
    if normalise:
        z1, z2 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
    total = 0.0
    for a, b in ((z1, z2), (z2, z1)):
        for i in range(len(a)):
            s = math.exp(a[i] @ b[i] / tau)
            others = sum(math.exp(a[i] @ b[k] / tau) for k in range(len(a)))
            same = sum(math.exp(a[i] @ a[k] / tau) for k in range(len(a)) if k != i)
            total += -math.log(s / (others + same)) / len(a)
    return total


@pytest.mark.parametrize("normalise", [True, False])
def test_it_is_the_literal_formula(normalise: bool) -> None:
    z1, z2 = (torch.randn(5, 7, generator=G, dtype=torch.float64) for _ in range(2))
    options = {"temperature": 0.5, "normalize_hidden": normalise}
    expected = literal(z1.numpy(), z2.numpy(), 0.5, normalise)
    assert objectives.cvrl(z1, z2, **options).item() == pytest.approx(expected, rel=1e-10)
    half = objectives.cvrl(z1, z2, reduction="mean_views", **options)
    assert half.item() == pytest.approx(expected / 2, rel=1e-10)
    if normalise:
        assert half.item() == pytest.approx(objectives.simclr(z1, z2, temperature=0.5).item(), rel=1e-10)


def test_its_limits() -> None:
    same = torch.ones(6, 4, dtype=torch.float64)
    assert objectives.cvrl(same, same).item() == pytest.approx(2 * math.log(11), rel=1e-12)
    z = torch.randn(8, 512, generator=G, dtype=torch.float64)
    assert objectives.cvrl(z, z).item() < 0.05
    with pytest.warns(UserWarning, match="no negatives"):
        assert objectives.cvrl(z[:1], 3 - z[:1]).item() == 0
    far = torch.randn(4, 8, generator=G).half()
    assert torch.isfinite(objectives.cvrl(far, -far, temperature=0.01))


def test_rotation_and_the_order_of_the_views_change_nothing_and_gradients_are_right() -> None:
    z1, z2 = (torch.randn(4, 5, generator=G, dtype=torch.float64, requires_grad=True) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(5, 5, generator=G, dtype=torch.float64))[0]
    loss = objectives.cvrl(z1, z2)
    assert objectives.cvrl(z2, z1).item() == pytest.approx(loss.item(), rel=1e-12)
    assert objectives.cvrl(z1 @ turn, z2 @ turn).item() == pytest.approx(loss.item(), rel=1e-10)
    assert torch.autograd.gradcheck(lambda a, b: objectives.cvrl(a, b, temperature=0.5), (z1, z2))


def test_diagnostics_and_weight_decay() -> None:
    z1, z2 = (torch.nn.functional.normalize(torch.randn(6, 9, generator=G), dim=1) for _ in range(2))
    terms = objectives.cvrl_terms(z1, z2)
    p = (z1 @ z2.T / 0.1).softmax(1)
    assert terms["contrast_acc"].item() == pytest.approx((p.argmax(1) == torch.arange(6)).float().mean().item())
    assert terms["contrast_entropy"].item() == pytest.approx(-(p * (p + 1e-8).log()).sum(1).mean().item(), rel=1e-5)
    layer = torch.nn.Linear(3, 2)
    found = objectives.cvrl_weight_decay(layer.parameters(), 0.1)
    assert found.item() == pytest.approx(0.05 * layer.weight.square().sum().item(), rel=1e-6)
    with pytest.raises(UserError, match="reduction must be one of sum_views"):
        objectives.cvrl(z1, z2, reduction="mean")
