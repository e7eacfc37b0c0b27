"""ReSSL."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from tests.objectives.test_dino import draw, softmax


def literal_ressl(q, k, queue, tau_q: float, tau_k: float) -> float:
    unit = lambda r: [x / math.sqrt(sum(y * y for y in r)) for x in r]  # noqa: E731
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    others, total = [unit(r) for r in queue.tolist()], 0.0
    for a, b in zip(q.tolist(), k.tolist(), strict=True):
        target = softmax([dot(unit(b), o) / tau_k for o in others])
        student = softmax([dot(unit(a), o) / tau_q for o in others])
        total -= sum(t * math.log(s) for t, s in zip(target, student, strict=True))
    return total / len(q)


def test_ressl_equals_its_formula_whatever_the_lengths() -> None:
    q, k, queue = draw(5, 4), draw(5, 4, seed=1), draw(9, 4, seed=2)
    expected = literal_ressl(q, k, queue, 0.1, 0.04)
    assert objectives.ressl(q, k, queue).item() == pytest.approx(expected, rel=1e-10)
    assert objectives.ressl(3 * q, 0.2 * k, 5 * queue).item() == pytest.approx(expected, rel=1e-10)
    other = objectives.ressl(q, k, queue, temperature_q=0.3, temperature_k=0.2).item()
    assert other == pytest.approx(literal_ressl(q, k, queue, 0.3, 0.2), rel=1e-10)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    assert objectives.ressl(q, k, queue[order]).item() == pytest.approx(expected, rel=1e-10)
    assert abs(objectives.ressl(k, q, queue).item() - expected) > 1e-3  # one direction only


def test_ressl_of_equal_views_and_temperatures_is_the_entropy_without_gradient() -> None:
    z, queue = draw(5, 4).requires_grad_(), draw(9, 4, seed=2)
    terms = objectives.ressl_terms(z, z.detach(), queue, temperature_q=0.1, temperature_k=0.1)
    terms["loss"].backward()
    p = (F.normalize(z, dim=1) @ F.normalize(queue, dim=1).T / 0.1).softmax(1)
    assert terms["loss"].item() == pytest.approx(-(p * p.log()).sum(1).mean().item(), abs=1e-12)
    assert terms["relation_entropy"].item() == pytest.approx(terms["loss"].item(), abs=1e-12)
    assert z.grad.abs().max() < 1e-12
    same = queue[:1].repeat(7, 1)
    assert objectives.ressl(z, z, same).item() == pytest.approx(math.log(7), abs=1e-12)


def test_ressl_gradient_is_the_students_alone() -> None:
    q, k, queue = (t.requires_grad_() for t in (draw(3, 4), draw(3, 4, seed=1), draw(6, 4, seed=2)))
    objectives.ressl(q, k, queue).backward()
    assert k.grad is None
    assert queue.grad is None
    assert q.grad.abs().max() > 0
    fixed = k.detach(), queue.detach()
    assert torch.autograd.gradcheck(lambda x: objectives.ressl(x, *fixed, temperature_q=0.5), (q,))


def test_a_sharp_teacher_is_one_hot_and_ressl_then_nearest_neighbour_contrast() -> None:
    """temperature_k to 0: the target is the queue entry nearest to k, the loss InfoNCE with it as the positive."""
    q, k, queue = draw(6, 4), draw(6, 4, seed=1), draw(12, 4, seed=2)
    sharp = objectives.ressl(q, k, queue, temperature_k=1e-4)
    unit = [F.normalize(x, dim=1) for x in (q, k, queue)]
    nearest = (unit[1] @ unit[2].T).argmax(1)
    assert sharp.item() == pytest.approx(F.cross_entropy(unit[0] @ unit[2].T / 0.1, nearest).item(), abs=1e-9)
