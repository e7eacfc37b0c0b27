"""Gaussian2Scene's losses: literal formulas in float64, limits, gradients, invariances, and a fit of a sphere."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from selftaught import objectives
from selftaught.networks.gaussians import Gaussians
from selftaught.networks.splatting import render_gaussians

G = torch.Generator().manual_seed(0)


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=G, dtype=torch.float64)


def literal_chamfer(a: np.ndarray, b: np.ndarray) -> float:
    there = sum(min(float(((p - q) ** 2).sum()) for q in b) for p in a) / len(a)
    back = sum(min(float(((p - q) ** 2).sum()) for p in a) for q in b) / len(b)
    return there + back


def test_chamfer_is_its_formula() -> None:
    a, b = rand(3, 6, 3), rand(3, 9, 3)
    wanted = [literal_chamfer(x.numpy(), y.numpy()) for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(objectives.chamfer(a, b, reduction="none"), torch.tensor(wanted, dtype=torch.float64))
    assert objectives.chamfer(a, b).item() == pytest.approx(np.mean(wanted), abs=1e-12)


def test_chamfer_has_the_properties_of_one() -> None:
    a, b = rand(2, 8, 3), rand(2, 5, 3)
    assert objectives.chamfer(a, a).item() == 0
    assert objectives.chamfer(a, b).item() == pytest.approx(objectives.chamfer(b, a).item(), abs=1e-14)
    assert objectives.chamfer(a[:, torch.randperm(8)], b).item() == pytest.approx(objectives.chamfer(a, b).item())
    point, d = rand(1, 3), torch.tensor([[0.3, -0.1, 0.2]], dtype=torch.float64)
    moved = (point + d).requires_grad_()
    found = objectives.chamfer(moved, point)
    assert found.item() == pytest.approx(2 * d.square().sum().item())
    (slope,) = torch.autograd.grad(found, moved)
    torch.testing.assert_close(slope, 4 * d)
    assert torch.autograd.gradcheck(objectives.chamfer, (a.requires_grad_(), b.requires_grad_()))


def test_chamfer_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = rand(3, 20, 3), rand(3, 30, 3)
    whole = objectives.chamfer(a, b, reduction="none")
    for room in (10, 700):
        monkeypatch.setattr(sys.modules["selftaught.objectives.gaussian2scene"], "_PAIRS", room)
        torch.testing.assert_close(objectives.chamfer(a, b, reduction="none"), whole)


def test_close_neighbours_far_from_the_origin_are_told_apart_in_float32() -> None:
    a = rand(1, 50, 3).float() * 0.1 + 100
    assert objectives.chamfer(a, a).item() == 0
    b = a + torch.tensor([0.001, 0, 0])
    assert objectives.chamfer(a, b).item() == pytest.approx(2e-6, rel=0.2)


def test_hidden_points_is_the_mean_over_patches() -> None:
    made, true = rand(2, 3, 5, 3), rand(2, 3, 5, 3)
    wanted = np.mean([literal_chamfer(made[i, j].numpy(), true[i, j].numpy()) for i in range(2) for j in range(3)])
    assert objectives.hidden_points(made, true).item() == pytest.approx(wanted, abs=1e-12)
    assert objectives.hidden_points(made[:, :0], true[:, :0]).item() == 0


def test_pictures_and_depth_are_their_formulas() -> None:
    made, true = rand(2, 3, 16, 17), rand(2, 3, 16, 17)
    wanted = 0.8 * (made - true).abs().mean() + 0.2 * (1 - objectives.ssim(made, true))
    torch.testing.assert_close(objectives.splatted_picture(made, true), wanted)
    assert objectives.splatted_picture(true, true).item() == pytest.approx(0, abs=1e-12)
    assert objectives.splatted_picture(made[:, :, :4], true[:, :, :4], structure=0).item() == pytest.approx(
        (made[:, :, :4] - true[:, :, :4]).abs().mean().item()
    )
    depth, alpha = 3 * rand(2, 4, 5), rand(2, 4, 5)
    depth[0, :2] = 0
    rendered = 2 * rand(2, 4, 5)
    total = count = 0.0
    for d, r, a in zip(depth.flatten().tolist(), rendered.flatten().tolist(), alpha.flatten().tolist(), strict=True):
        if d > 0:
            total, count = total + abs(r - a * d), count + 1
    assert objectives.splatted_depth(rendered, depth, alpha).item() == pytest.approx(total / count)
    assert objectives.splatted_depth(alpha * depth, depth, alpha).item() == 0


def test_cross_modal_is_masked_mae_on_the_patches_that_are_hit() -> None:
    told, patches = rand(2, 4, 12), rand(2, 4, 12)
    found = torch.tensor([[True, False, True, False], [False, False, True, True]])
    errors = []
    for i, j in found.nonzero().tolist():
        p = patches[i, j].numpy()
        target = (p - p.mean()) / np.sqrt(p.var(ddof=1) + 1e-6)
        errors.append(((told[i, j].numpy() - target) ** 2).mean())
    assert objectives.cross_modal_patches(told, patches, found).item() == pytest.approx(np.mean(errors))
    assert objectives.cross_modal_patches(told, patches, torch.zeros(2, 4, dtype=torch.bool)).item() == 0


def test_the_sum_is_weighted_and_stage_one_is_a_limit() -> None:
    points, image = (rand(2, 3, 5, 3), rand(2, 3, 5, 3)), (rand(2, 4, 12), rand(2, 4, 12), torch.ones(2, 4))
    cross, sets = (rand(2, 3, 12), rand(2, 3, 12), torch.ones(2, 3)), (rand(2, 9, 3), rand(2, 20, 3))
    pictures, depths = (rand(2, 3, 12, 12), rand(2, 3, 12, 12)), (rand(2, 4, 4), rand(2, 4, 4), rand(2, 4, 4))
    t = objectives.gaussian2scene_terms(
        points, image, cross, sets, pictures, depths, cross_weight=2.0, geometry_weight=3.0, picture_weight=5.0,
        depth_weight=7.0,
    )  # fmt: skip
    wanted = t["points"] + t["image"] + 2 * t["cross"] + 3 * t["geometry"] + 5 * t["picture"] + 7 * t["depth"]
    torch.testing.assert_close(t["loss"], wanted)
    first = objectives.gaussian2scene(points, image, cross)
    without = {"geometry_weight": 0.0, "picture_weight": 0.0}
    torch.testing.assert_close(first, objectives.gaussian2scene(points, image, cross, sets, pictures, **without))


@pytest.mark.slow
def test_gaussians_fit_a_coloured_sphere_and_geometry_holds_them_to_it() -> None:
    """The sheet's toy check: two 32 x 32 views, 200 noisy points, 100 steps."""
    g = torch.Generator().manual_seed(1)
    normal = torch.nn.functional.normalize(torch.randn(500, 3, generator=g), dim=1)
    surface, colours = 0.5 * normal, (normal + 1) / 2
    k = torch.tensor([[60.0, 0, 16], [0, 60, 16], [0, 0, 1]])
    front, back = torch.eye(4), torch.diag(torch.tensor([-1.0, 1, -1, 1]))
    front[2, 3] = back[2, 3] = 2.0
    true = Gaussians(surface, torch.eye(4)[:1].repeat(500, 1), torch.full((500, 3), 0.04), torch.full((500,), 0.9),
                     colours)  # fmt: skip
    views = [(pose, render_gaussians(true, k, pose, (32, 32), 0.5).image) for pose in (front, back)]
    start = surface[:200] + 0.08 * torch.randn(200, 3, generator=g)

    def away(mu: Tensor) -> float:
        return (mu.norm(dim=1) - 0.5).abs().mean().item()

    def fit(geometry: float) -> tuple[float, float]:
        mu, s, q = start.clone(), torch.full((200, 3), -3.0), torch.eye(4)[:1].repeat(200, 1)
        o, c = torch.full((200,), 0.0), torch.zeros(200, 3)
        parts = [p.requires_grad_() for p in (mu, q, s, o, c)]
        stepper = torch.optim.Adam([{"params": [mu], "lr": 0.005}, {"params": parts[1:], "lr": 0.05}])
        for _ in range(100):
            made = Gaussians(mu, q, s.clamp(-8, 0).exp(), o.sigmoid(), c.sigmoid())
            shown = torch.stack([render_gaussians(made, k, pose, (32, 32), 0.5).image for pose, _ in views])
            loss = objectives.gaussian2scene(
                None, None, None, (mu[None], surface[None]), (shown, torch.stack([v for _, v in views])),
                geometry_weight=geometry,
            )  # fmt: skip
            stepper.zero_grad()
            loss.backward()
            stepper.step()
        error = (shown.detach() - torch.stack([v for _, v in views])).square().mean()
        return -10 * torch.log10(error).item(), away(mu.detach())

    psnr, distance = fit(10.0)
    assert psnr > 20
    assert distance < 0.5 * away(start)
    assert fit(0.0)[1] > distance
