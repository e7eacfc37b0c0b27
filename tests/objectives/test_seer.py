"""SEER."""

from __future__ import annotations

import pytest

from selftaught import objectives
from tests.objectives.test_swav import cosines, literal_sinkhorn, literal_swav


def test_seer_is_swav_with_its_own_settings() -> None:
    scores = [cosines(9, 4, seed) for seed in range(3)]
    assert objectives.seer(*scores).item() == pytest.approx(objectives.swav(*scores, eps=0.03, iters=10).item())
    law = objectives.seer(*scores, power_law=0.8).item()
    codes = [literal_sinkhorn(scores[i].numpy(), 0.03, 10, 0.8) for i in (0, 1)]
    assert law == pytest.approx(literal_swav([s.numpy() for s in scores], codes, (0, 1), 0.1), rel=1e-9)
    assert abs(law - objectives.seer(*scores).item()) > 1e-3


def test_one_sample_and_more_prototypes_than_samples_stay_finite() -> None:
    for rows, count in ((1, 4), (3, 50)):
        scores = [cosines(rows, count, seed).float().requires_grad_() for seed in range(2)]
        loss = objectives.seer(*scores)
        loss.backward()
        assert loss.isfinite()
        assert all(s.grad.isfinite().all() for s in scores)
