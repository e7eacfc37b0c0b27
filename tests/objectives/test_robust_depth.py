"""Robust-Depth's loss against its equations, who learns from whom, and the case where nothing was altered."""

from __future__ import annotations

import math

import numpy as np
import torch

from selftaught.objectives import (
    bidirectional_depth_loss,
    log_difference,
    monodepth2_terms,
    pseudo_masks,
    pseudo_pose_loss,
    robust_depth_terms,
)


def test_l_is_the_equation() -> None:
    rng = np.random.default_rng(0)
    x, y, m = rng.random((2, 1, 3, 4)), rng.random((2, 1, 3, 4)), rng.random((2, 1, 3, 4)) > 0.5
    wanted = sum(math.log(abs(a - b) + 1) for a, b, c in zip(x.flat, y.flat, m.flat, strict=True) if c) / (
        m.sum() + 1e-7
    )
    found = log_difference(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(m))
    assert abs(float(found) - wanted) < 1e-12
    ones = torch.ones(1, 1, 2, 2)
    assert abs(float(log_difference(ones, 0 * ones, ones)) - math.log(2)) < 1e-6
    assert float(log_difference(ones, 0 * ones, 0 * ones)) == 0


def test_masks_say_which_branch_is_best_of_six() -> None:
    still = torch.tensor([[0.5, 0.1, 0.5, 0.2]] * 2).view(1, 2, 1, 4)
    altered = torch.tensor([[0.3, 0.3, 0.4, 0.2], [0.4, 0.4, 0.2, 0.3]]).view(1, 2, 1, 4)
    clear = torch.tensor([[0.2, 0.2, 0.3, 0.3], [0.9, 0.9, 0.9, 0.9]]).view(1, 2, 1, 4)
    mc, ma = pseudo_masks(still, altered, clear)
    assert mc.flatten().tolist() == [True, False, False, False]
    assert ma.flatten().tolist() == [False, False, True, False]
    mc, ma = pseudo_masks(still[:, :0], altered, clear)
    assert mc.flatten().tolist() == [True, True, False, False]


def test_the_better_branch_teaches_and_gets_no_gradient() -> None:
    torch.manual_seed(0)
    a, c = (torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    every, none = torch.ones(2, 1, 8, 8, dtype=torch.bool), torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    bidirectional_depth_loss(a, c, every, none, weight=1.0).backward()
    assert c.grad is not None
    assert not c.grad.any()
    away = (a - c).detach()
    torch.testing.assert_close(a.grad, away.sign() / (1 + away.abs()) / (a.numel() + 1e-7))


def test_the_clear_motion_teaches_the_altered_one() -> None:
    altered = torch.full((2, 2, 3), 0.3, requires_grad=True)
    clear = torch.full((2, 2, 3), 0.1, requires_grad=True)
    loss = pseudo_pose_loss(altered, altered, clear, clear, weight=0.01)
    loss.backward()
    assert abs(loss.item() - 0.01 * 0.2) < 1e-7
    assert clear.grad is None
    assert bool((altered.grad > 0).all())


def test_nothing_altered_is_twice_monodepth2() -> None:
    torch.manual_seed(0)
    d = {s: torch.rand(2, 1, 8 >> s, 8 >> s, dtype=torch.float64) for s in (0, 1)}
    warped = {s: torch.rand(2, 2, 3, 8, 8, dtype=torch.float64) for s in (0, 1)}
    target, sources = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 2, 3, 8, 8, dtype=torch.float64)
    noise = 1e-5 * torch.rand(2, 2, 8, 8, dtype=torch.float64)
    both = robust_depth_terms(d, d, warped, warped, target, sources, noise=noise)
    once = monodepth2_terms(d, warped, target, sources, noise=noise)
    torch.testing.assert_close(both["photometric"], 2 * once["photometric"])
    torch.testing.assert_close(both["smoothness"], 2 * once["smoothness"])
    assert both["depth"] == 0
    single = robust_depth_terms(d, d, warped, warped, target, sources, noise=noise, one_minimum=True)
    torch.testing.assert_close(single["photometric"], once["photometric"])
    skipped = robust_depth_terms(d, d, warped, warped, target, sources, noise=noise, skipped=torch.tensor([True, True]))
    assert skipped["smoothness"] == 0
