"""Momentum contrast within the batch."""

import math

import pytest
import torch

from selftaught import objectives
from tests.objectives.test_moco_v2 import dot, unit


def literal_moco_v3(q, k, temperature):
    rows = [[[x / math.sqrt(dot(r, r)) for x in r] for r in t.tolist()] for t in (q, k)]
    total = 0.0
    for i, query in enumerate(rows[0]):
        scores = [math.exp(dot(query, key) / temperature) for key in rows[1]]
        total -= math.log(scores[i] / sum(scores))
    return 2 * temperature * total / len(q)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_moco_v3_equals_its_formula(temperature):
    q1, q2, k1, k2 = (3 * unit(5, seed=s) for s in range(4))
    forward, back = literal_moco_v3(q1, k2, temperature), literal_moco_v3(q2, k1, temperature)
    both = objectives.moco_v3(q1, q2, k1, k2, temperature=temperature)
    assert both.item() == pytest.approx(forward + back, rel=1e-11)
    one = objectives.moco_v3(q1, q2, k1, k2, temperature=temperature, symmetric=False)
    assert one.item() == pytest.approx(forward, rel=1e-11)


def test_moco_v3_limits():
    row = unit(1).repeat(8, 1)
    assert objectives.moco_v3(row, row, row, row, temperature=0.3).item() == pytest.approx(4 * 0.3 * math.log(8))
    one = unit(1)
    assert objectives.moco_v3(one, one, one, one).item() == pytest.approx(0, abs=1e-12)


def test_moco_v3_has_no_gradient_into_the_keys_and_the_right_one_into_the_queries():
    leaves = [unit(4, 5, seed=s).requires_grad_() for s in range(4)]
    objectives.moco_v3(*leaves).backward()
    assert leaves[2].grad is None
    assert leaves[3].grad is None
    k1, k2 = (t.detach() for t in leaves[2:])
    assert torch.autograd.gradcheck(lambda a, b: objectives.moco_v3(a, b, k1, k2), (leaves[0], leaves[1]))
    assert not torch.equal(leaves[0].grad, leaves[1].grad)
