"""ProDepth's terms against their equations, and what no gradient reaches."""

from __future__ import annotations

import numpy as np
import torch

from selftaught.objectives import (
    confidence_mask,
    cost_volume_loss,
    depth_consistency,
    heteroscedastic,
    prodepth_terms,
    reprojection_errors,
)


def test_terms_are_the_equations() -> None:
    torch.manual_seed(0)
    n, size = 2, (2, 1, 6, 6)
    d = {0: torch.rand(size, dtype=torch.float64)}
    warped, aux = (torch.rand(2, n, 3, 6, 6, dtype=torch.float64) for _ in range(2))
    target, scaled, single, w = (torch.rand(2, c, 6, 6, dtype=torch.float64) for c in (3, 1, 1, 1))
    hit = torch.tensor([0.0, 1.0], dtype=torch.float64)
    found = prodepth_terms(d, {0: warped}, aux, target, scaled, single, w, hit)
    m = np.where(w.numpy() > 0.4, w.numpy(), 0) * (1 - hit.numpy())[:, None, None, None]
    pe, pc = (reprojection_errors(x, target).numpy().min(1, keepdims=True) for x in (warped, aux))
    photometric = (pe * m).sum() / (m.sum() + 1e-7)
    consistency = 0.1 * (np.abs(scaled.numpy() - single.numpy()) * (1 - m)).mean()
    volume = pc[0].sum() / (pc[0].size + 1e-7)
    for name, value in (("photometric", photometric), ("consistency", consistency), ("cost volume", volume)):
        assert abs(float(found[name]) - value) < 1e-12
    total = photometric + consistency + float(found["smoothness"]) + 0.3 * volume
    assert abs(float(found["loss"]) - total) < 1e-12


def test_all_samples_disturbed_leaves_consistency_alone() -> None:
    torch.manual_seed(0)
    w, hit = torch.rand(2, 1, 4, 4), torch.ones(2)
    assert not confidence_mask(w, hit).any()
    assert cost_volume_loss(torch.rand(2, 1, 4, 4), hit) == 0
    assert confidence_mask(w, 0 * hit, reweighting=False).all()


def test_the_teacher_and_the_weight_get_no_gradient() -> None:
    torch.manual_seed(0)
    scaled, single, w = (torch.rand(2, 1, 4, 4, requires_grad=True) for _ in range(3))
    mask = confidence_mask(w, torch.zeros(2))
    depth_consistency(scaled, single, mask).backward()
    assert scaled.grad is not None
    assert scaled.grad.any()
    assert single.grad is None
    assert w.grad is None


def test_an_error_teaches_its_own_size() -> None:
    error = torch.full((1, 1, 2, 2), 0.3)
    sigma = torch.full((1, 1, 2, 2), 0.3, requires_grad=True)
    heteroscedastic(error, sigma).backward()
    assert sigma.grad is not None
    assert sigma.grad.abs().max() < 1e-6
