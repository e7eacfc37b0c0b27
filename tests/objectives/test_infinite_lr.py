"""MAS and LwF against literal transcriptions, and where they must vanish."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError

G = torch.Generator().manual_seed(0)
NEW, OLD = (torch.randn(3, 4, 5, generator=G, dtype=torch.float64) for _ in range(2))


def test_mas() -> None:
    expected = np.mean([sum(v * v for v in row) for row in NEW.reshape(-1, 5).numpy()])
    assert objectives.mas_output(NEW).item() == pytest.approx(expected)
    assert objectives.mas_output(NEW, axis=1).item() == pytest.approx(4 / 5 * expected)
    theta = [torch.randn(2, 3, generator=G), torch.randn(4, generator=G)]
    star, omega = [t + 0.5 for t in theta], [torch.rand_like(t) for t in theta]
    expected = 3.0 * sum(0.25 * float(w.sum()) for w in omega)
    assert objectives.mas_penalty(theta, star, omega, weight=3.0).item() == pytest.approx(expected, rel=1e-5)
    live = [t.clone().requires_grad_() for t in theta]
    still = objectives.mas_penalty(live, theta, omega)
    still.backward()
    assert still.item() == 0
    assert all((t.grad == 0).all() for t in live)
    merged = objectives.mas_merge(omega, star, alpha=0.25)
    assert torch.allclose(merged[0], 0.25 * omega[0] + 0.75 * star[0])
    with pytest.raises(UserError, match="equal shapes"):
        objectives.mas_penalty(theta, star[:1], omega)


def test_lwf() -> None:
    rows = zip(NEW.reshape(-1, 5).numpy(), OLD.reshape(-1, 5).numpy(), strict=True)
    cosines = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in rows]
    assert objectives.lwf(NEW, OLD, alpha=0.5).item() == pytest.approx(0.5 * (1 - np.mean(cosines)))
    assert objectives.lwf(NEW, NEW).item() == pytest.approx(0, abs=1e-12)
    assert objectives.lwf(NEW, -NEW).item() == pytest.approx(2)
    assert objectives.lwf(3 * NEW, OLD).item() == pytest.approx(objectives.lwf(NEW, OLD).item())
    old = OLD.clone().requires_grad_()
    assert not objectives.lwf(NEW, old).requires_grad
    assert objectives.lwf(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 1
