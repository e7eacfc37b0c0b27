"""Cross-entropy."""

import math

import pytest
import torch

from selftaught import objectives
from tests.objectives.test_moco_v2 import unit
from tests.objectives.test_supcon import LABELS


def literal_cross_entropy(logits, labels, smoothing):
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(x) for x in row))
        target = [smoothing / len(row) + (1 - smoothing) * (c == label) for c in range(len(row))]
        total -= sum(t * (x - log_sum) for t, x in zip(target, row, strict=True))
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_supervised_equals_its_formula(smoothing):
    logits = 3 * unit(6, 3)
    ours = objectives.supervised(logits, LABELS, smoothing=smoothing)
    assert ours.item() == pytest.approx(literal_cross_entropy(logits, LABELS, smoothing), rel=1e-12)
    equal = objectives.supervised(torch.zeros(6, 3), LABELS, smoothing=smoothing)
    assert equal.item() == pytest.approx(math.log(3))


def test_supervised_gradient_is_softmax_minus_target():
    logits = unit(6, 3).requires_grad_()
    objectives.supervised(logits, LABELS).backward()
    expected = (logits.detach().softmax(1) - torch.eye(3, dtype=torch.float64)[LABELS]) / 6
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-14)
