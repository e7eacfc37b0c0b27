"""SiT's losses against literal transcriptions, their analytic values and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError

G = torch.Generator().manual_seed(0)


def literal(q1, q2, k1, k2, tau, rank):
    total, n = 0.0, len(q1)
    for q, k in ((q1, k2), (q2, k1)):
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        k = k / np.linalg.norm(k, axis=1, keepdims=True)
        for i in range(n):
            scores = [math.exp(q[i] @ row / tau) for row in k]
            total += -math.log(scores[i + n * rank] / sum(scores)) / n
    return 2 * tau * total


@pytest.mark.parametrize("rank", [0, 1])
def test_the_contrast(rank: int) -> None:
    q1, q2 = (torch.randn(4, 5, generator=G, dtype=torch.float64) for _ in range(2))
    k1, k2 = (torch.randn(8, 5, generator=G, dtype=torch.float64) for _ in range(2))
    found = objectives.sit_contrastive(q1, q2, k1, k2, temperature=0.3, rank=rank)
    assert found.item() == pytest.approx(literal(*(t.numpy() for t in (q1, q2, k1, k2)), 0.3, rank))
    scaled = objectives.sit_contrastive(3 * q1, q2, k1, 0.1 * k2, temperature=0.3, rank=rank)
    assert scaled.item() == pytest.approx(found.item())


def test_analytic_values() -> None:
    same = torch.ones(16, 4)
    assert objectives.sit_contrastive(same, same, same, same).item() == pytest.approx(2.2181, abs=1e-4)
    eye = torch.eye(16)
    expected = 4 * 0.2 * math.log(1 + 15 * math.exp(-5))
    assert objectives.sit_contrastive(eye, eye, eye, eye).item() == pytest.approx(expected, rel=1e-5)
    one = torch.randn(1, 4, requires_grad=True)
    alone = objectives.sit_contrastive(one, one, one.detach(), one.detach())
    alone.backward()
    assert alone.item() == 0
    assert (one.grad == 0).all()
    key = torch.randn(3, 4, requires_grad=True)
    objectives.sit_contrastive(torch.randn(3, 4, requires_grad=True), torch.randn(3, 4), key, key).backward()
    assert key.grad is None


def test_the_restoration_is_one_ratio_over_the_batch() -> None:
    clean = torch.rand(2, 3, 10, 10, generator=G)
    mask = torch.zeros(2, 1, 10, 10)
    mask[0, :, :3], mask[1, :, :5] = 1, 1
    restored = clean.clone()
    restored[1] += 1.0
    assert objectives.sit_reconstruction(restored, clean, mask).item() == pytest.approx(0.625)
    for c in (0.3, -2.0):
        assert objectives.sit_reconstruction(clean + c, clean, mask).item() == pytest.approx(abs(c), rel=1e-5)
        assert objectives.sit_reconstruction(clean + c, clean, mask, kind="l2").item() == pytest.approx(c * c, rel=1e-5)
    live = (clean + torch.randn(clean.shape, generator=G)).requires_grad_()
    objectives.sit_reconstruction(live, clean, mask.expand_as(clean)).backward()
    hidden = mask.expand_as(clean).bool()
    assert (live.grad[~hidden] == 0).all()
    assert torch.allclose(live.grad[hidden], (live - clean).sign()[hidden] / hidden.sum())
    assert objectives.sit_reconstruction(live, clean, torch.zeros_like(mask)).item() == 0


def test_the_sum_and_learnt_weights() -> None:
    q = [torch.randn(3, 4, generator=G) for _ in range(4)]
    images = [torch.rand(6, 1, 4, 4, generator=G) for _ in range(2)]
    mask = torch.ones(6, 1, 4, 4)
    parts = objectives.sit_contrastive(*q), objectives.sit_reconstruction(*images, mask)
    assert objectives.sit(*q, *images, mask, weight=5.0).item() == pytest.approx((parts[0] + 5 * parts[1]).item())
    s = torch.tensor([0.5, -1.0], requires_grad=True)
    found = objectives.uncertainty_weighted([torch.tensor(2.0), torch.tensor(3.0)], s)
    assert found.item() == pytest.approx(math.exp(-0.5) * 2 + 0.5 + math.exp(1) * 3 - 1)
    found.backward()
    assert torch.allclose(s.grad, torch.tensor([1 - 2 * math.exp(-0.5), 1 - 3 * math.exp(1)]))
    with pytest.raises(UserError, match="as many log variances"):
        objectives.uncertainty_weighted([torch.tensor(2.0)], s)
    with pytest.raises(UserError, match="no rows of rank 2"):
        objectives.sit_contrastive(*q, rank=2)
