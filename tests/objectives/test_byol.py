"""BYOL."""

import pytest
import torch
import torch.nn.functional as F

from selftaught.objectives import byol, simsiam
from tests.objectives.test_simsiam import four, literal_cosine


def test_byol_is_the_sum_of_two_squared_distances_of_unit_vectors():
    p1, p2, z1, z2 = four()
    first = 2 - 2 * literal_cosine(p1, z2)
    assert byol(p1, p2, z1, z2, symmetric=False).item() == pytest.approx(first, rel=1e-12)
    assert byol(p1, p2, z1, z2).item() == pytest.approx(first + 2 - 2 * literal_cosine(p2, z1), rel=1e-12)
    squared = (F.normalize(p1) - F.normalize(z2)).square().sum(1).mean()
    assert first == pytest.approx(squared.item(), rel=1e-12)


def test_byol_is_four_times_simsiam():
    views = four()
    again = [t.clone() for t in views]
    for t in (*views, *again):
        t.requires_grad_()
    ours, theirs = byol(*views), simsiam(*again)
    assert ours.item() == pytest.approx(4 + 4 * theirs.item(), rel=1e-12)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(views[0].grad, 4 * again[0].grad, rtol=1e-10, atol=1e-14)


def test_byol_gradients_by_finite_differences():
    p1, p2, z1, z2 = four(3, 4)
    assert torch.autograd.gradcheck(lambda a, b: byol(a, b, z1, z2), (p1.requires_grad_(), p2.requires_grad_()))
