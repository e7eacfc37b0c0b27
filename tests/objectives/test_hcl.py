"""Hard and debiased negatives against the papers' sums by loops, and their limits."""

import math

import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from selftaught.errors import UserError


def pair(rows=6, width=5):
    g = torch.Generator().manual_seed(0)
    z1 = F.normalize(torch.randn(rows, width, generator=g, dtype=torch.float64), dim=1)
    z2 = F.normalize(z1 + 0.7 * torch.randn(rows, width, generator=g, dtype=torch.float64), dim=1)
    return z1, z2


def literal(z1, z2, temperature, tau_plus, beta):
    views, n = (z1.tolist(), z2.tolist()), len(z1)
    total, count, clamped = 0.0, 2 * n - 2, 0
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    for v in range(2):
        for i in range(n):
            positive = math.exp(dot(views[0][i], views[1][i]) / temperature)
            negative = [
                math.exp(dot(views[v][i], views[w][j]) / temperature) for w in range(2) for j in range(n) if j != i
            ]
            importance = [x**beta for x in negative]
            mean = sum(importance) / count
            hard = sum(a * b for a, b in zip(importance, negative, strict=True)) / mean
            found = (hard - tau_plus * count * positive) / (1 - tau_plus)
            lowest = count * math.exp(-1 / temperature)
            clamped += found < lowest
            total -= math.log(positive / (positive + max(found, lowest))) / (2 * n)
    return total, clamped


@pytest.mark.parametrize("temperature", [0.2, 0.5])
@pytest.mark.parametrize("tau_plus", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_hcl_equals_its_formula(temperature, tau_plus, beta):
    z1, z2 = pair()
    expected, clamped = literal(z1, z2, temperature, tau_plus, beta)
    ours = objectives.hcl(z1, z2, temperature=temperature, tau_plus=tau_plus, beta=beta)
    assert ours.item() == pytest.approx(expected, rel=1e-9)
    assert clamped > 0 or tau_plus < 0.3  # the clamp is met, too


def test_limits_gradient_and_refusals():
    z1, z2 = (z.requires_grad_() for z in pair())
    plain = objectives.hcl(z1, z2, temperature=0.3, tau_plus=0.0, beta=0.0)
    assert plain.item() == pytest.approx(objectives.simclr(z1, z2, temperature=0.3).item(), rel=1e-10)
    assert objectives.hcl(z1, z2, tau_plus=0.0, beta=1.0) > objectives.hcl(z1, z2, tau_plus=0.0, beta=0.0)
    assert torch.autograd.gradcheck(lambda a, b: objectives.hcl(a, b, tau_plus=0.05), (z1, z2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert objectives.hcl(*(z.detach().bfloat16() for z in (z1, z2))).dtype == torch.float32
    for options in ({"tau_plus": 1.0}, {"beta": -1.0}, {"temperature": 0.0}):
        with pytest.raises(UserError, match=next(iter(options))):
            objectives.hcl(z1, z2, **options)
    with pytest.raises(UserError, match="negatives"):
        objectives.hcl(*pair(1))
