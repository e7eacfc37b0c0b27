"""NT-Xent."""

import math

import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from tests.objectives.test_dcl import pair, unit


def literal_simclr(views, temperature):
    """NT-Xent with loops: log of positives over all terms but the anchor's own."""
    rows = [[[x / math.sqrt(sum(y * y for y in r)) for x in r] for r in view.tolist()] for view in views]
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True)) / temperature  # noqa: E731
    total, count = 0.0, 0
    for k, view in enumerate(rows):
        for i, anchor in enumerate(view):
            others = [(v, j, z) for v, other in enumerate(rows) for j, z in enumerate(other) if (v, j) != (k, i)]
            below = sum(math.exp(dot(anchor, z)) for _, _, z in others)
            above = sum(math.exp(dot(anchor, z)) for _, j, z in others if j == i)
            total, count = total - math.log(above / below), count + 1
    return total / count


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0])
def test_simclr_equals_its_formula_also_for_more_views(count, temperature):
    views = [3 * unit(5, seed=k) for k in range(count)]
    ours = objectives.simclr(*views, temperature=temperature)
    assert ours.dtype == torch.float64
    assert ours.item() == pytest.approx(literal_simclr(views, temperature), rel=1e-9)


def test_simclr_gradient_equals_that_of_the_matrix_form():
    z1, z2 = pair()
    a1, a2, b1, b2 = (t.clone().mul(2).requires_grad_() for t in (z1, z1, z2, z2))
    objectives.simclr(a1, b1, temperature=0.3).backward()
    z = F.normalize(torch.cat([a2, b2]), dim=1)
    logits = (z @ z.T / 0.3).masked_fill(torch.eye(18, dtype=torch.bool), -math.inf)
    F.cross_entropy(logits, (torch.arange(18) + 9) % 18).backward()
    torch.testing.assert_close(a1.grad, a2.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(b1.grad, b2.grad, rtol=0, atol=1e-12)


def test_simclr_of_equal_projections_is_log_of_all_terms():
    z = unit(1).repeat(12, 1)
    assert objectives.simclr(z, z, temperature=0.2).item() == pytest.approx(math.log(2 * 12 - 1), abs=1e-12)


def test_simclr_of_one_sample_is_zero_without_gradient():
    z1, z2 = (t.requires_grad_() for t in pair(1))
    loss = objectives.simclr(z1, z2)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert z1.grad.abs().max() < 1e-12


def test_simclr_ignores_length_swap_order_and_rotation():
    z1, z2 = pair()
    reference = objectives.simclr(z1, z2).item()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    rotation = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))).Q
    assert objectives.simclr(5 * z1, 0.1 * z2).item() == pytest.approx(reference, abs=1e-12)
    assert objectives.simclr(z2, z1).item() == pytest.approx(reference, abs=1e-12)
    assert objectives.simclr(z1[order], z2[order]).item() == pytest.approx(reference, abs=1e-12)
    assert objectives.simclr(z1 @ rotation, z2 @ rotation).item() == pytest.approx(reference, abs=1e-12)
    assert abs(objectives.simclr(z1, z2[order]).item() - reference) > 0.1
