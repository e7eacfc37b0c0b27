"""Rotation, jigsaw, relative position: the cross-entropy of their question, and what knowing nothing costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError


def literal(logits: np.ndarray, labels: list[int]) -> float:
    total = 0.0
    for row, y in zip(logits, labels, strict=True):
        total -= row[y] - math.log(sum(math.exp(v) for v in row))
    return total / len(labels)


@pytest.mark.parametrize(("name", "classes"), [("rotation", 4), ("jigsaw", 20), ("relative_position", 8)])
def test_the_loss_is_the_papers(name: str, classes: int) -> None:
    function = getattr(objectives, name)
    logits = torch.randn(8, classes, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(classes, (8,))
    expected = literal(logits.detach().numpy(), labels.tolist())
    assert function(logits, labels).item() == pytest.approx(expected, rel=1e-12)
    assert function(torch.zeros(8, classes), labels).item() == pytest.approx(math.log(classes))
    assert torch.autograd.gradcheck(lambda x: function(x, labels), (logits,))


def test_rotation_knows_the_turns_of_interleaved_copies() -> None:
    logits = torch.randn(12, 4)
    assert torch.equal(objectives.rotation(logits), objectives.rotation(logits, torch.arange(4).repeat(3)))
    sure = 50 * torch.eye(4).repeat(3, 1)
    assert objectives.rotation(sure).item() < 1e-6
    with pytest.raises(UserError, match="interleaved"):
        objectives.rotation(torch.randn(10, 4))
