"""Monodepth2's loss against its equations written out, its gradients, its limits."""

from __future__ import annotations

import numpy as np
import torch
from torch.autograd import gradcheck, gradgradcheck

from selftaught.objectives import (
    edge_smoothness,
    minimum_reprojection,
    monodepth2_terms,
    photometric_error,
    reprojection_errors,
    ssim_distance,
    ssim_statistics,
)

RNG = np.random.default_rng(0)


def literal_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(C, H, W) pixel by pixel."""
    channels, height, width = x.shape
    found = np.empty_like(x)
    px, py = (np.pad(a, ((0, 0), (1, 1), (1, 1)), mode="reflect") for a in (x, y))
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                a, b = (p[c, i : i + 3, j : j + 3] for p in (px, py))
                ma, mb = a.mean(), b.mean()
                va, vb = (a**2).mean() - ma**2, (b**2).mean() - mb**2
                cov = (a * b).mean() - ma * mb
                top = (2 * ma * mb + 0.01**2) * (2 * cov + 0.03**2)
                ssim = top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2))
                found[c, i, j] = min(max((1 - ssim) / 2, 0), 1)
    return found


def literal_error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.85 * literal_ssim(x, y).mean(0) + 0.15 * np.abs(x - y).mean(0)


def literal_smooth(d: np.ndarray, image: np.ndarray) -> float:
    d = d / (d.mean() + 1e-7)
    total = 0.0
    for axis in (0, 1):
        slope = np.abs(np.diff(d, axis=axis))
        edge = np.abs(np.diff(image, axis=axis + 1)).mean(0)
        total += (slope * np.exp(-edge)).mean()
    return total


def draw(*shape: int) -> np.ndarray:
    return RNG.random(shape)


def test_photometric_error_is_the_equation() -> None:
    x, y = draw(2, 3, 5, 6), draw(2, 3, 5, 6)
    found = photometric_error(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    wanted = np.stack([literal_error(a, b) for a, b in zip(x, y, strict=True)])[:, None]
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert photometric_error(torch.from_numpy(x), torch.from_numpy(x)).abs().max() < 1e-12


def test_smoothness_is_the_equation_and_sees_no_scale() -> None:
    d, image = draw(2, 1, 5, 6) + 0.1, draw(2, 3, 5, 6)
    found = edge_smoothness(torch.from_numpy(d), torch.from_numpy(image))
    wanted = np.mean([literal_smooth(a[0], b) for a, b in zip(d, image, strict=True)])
    assert abs(float(found) - wanted) < 1e-12
    scaled = edge_smoothness(torch.from_numpy(5 * d), torch.from_numpy(image))
    assert abs(float(scaled - found)) < 1e-6


def test_the_whole_is_the_mean_over_scales() -> None:
    target, sources, noise = draw(2, 3, 8, 8), draw(2, 2, 3, 8, 8), 1e-5 * draw(2, 2, 8, 8)
    warped = {s: draw(2, 2, 3, 8, 8) for s in (0, 1)}
    disparities = {0: draw(2, 1, 8, 8), 1: draw(2, 1, 4, 4)}
    found = monodepth2_terms(
        {s: torch.from_numpy(d) for s, d in disparities.items()},
        {s: torch.from_numpy(w) for s, w in warped.items()},
        torch.from_numpy(target), torch.from_numpy(sources), noise=torch.from_numpy(noise),
    )  # fmt: skip
    photometric, smooth = [], []
    for s in (0, 1):
        rows = []
        for n in range(2):
            still = [literal_error(sources[f, n], target[n]) + noise[n, f] for f in range(2)]
            moved = [literal_error(warped[s][f, n], target[n]) for f in range(2)]
            rows.append(np.min(still + moved, axis=0).mean())
            small = target[n] if s == 0 else target[n].reshape(3, 4, 2, 4, 2).mean((2, 4))
            smooth.append(1e-3 / 2**s * literal_smooth(disparities[s][n, 0], small))
        photometric.append(np.mean(rows))
    assert abs(float(found["photometric"]) - np.mean(photometric)) < 1e-12
    assert abs(float(found["smoothness"]) - np.mean(smooth)) < 1e-12
    assert abs(float(found["loss"]) - np.mean(photometric) - np.mean(smooth)) < 1e-12


def test_a_frame_that_stands_still_teaches_nothing() -> None:
    warped, identity = torch.full((1, 2, 3, 3), 0.5, requires_grad=True), torch.full((1, 2, 3, 3), 0.1)
    best, moving = minimum_reprojection(warped, identity)
    best.sum().backward()
    assert not moving.any()
    assert warped.grad is not None
    assert not warped.grad.any()
    best, moving = minimum_reprojection(torch.tensor([[[[0.2]], [[0.4]]]]), average=True)
    assert moving.all()
    assert torch.isclose(best, torch.tensor(0.3)).all()


def test_first_and_second_derivatives() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(ssim_distance, (x, y))
    assert gradgradcheck(ssim_distance, (x, y))
    known = ssim_statistics(y.detach())  # no gradient for y: written out by hand
    assert gradcheck(lambda x: ssim_distance(x, known), (x,))
    assert gradgradcheck(lambda x: ssim_distance(x, known), (x,))
    torch.testing.assert_close(ssim_distance(x, known), ssim_distance(x, y), rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda d: edge_smoothness(d, y.detach()), (x,))


def test_errors_of_several_frames_are_those_of_each() -> None:
    torch.manual_seed(0)
    frames, target = torch.rand(3, 2, 3, 5, 5), torch.rand(2, 3, 5, 5)
    found = reprojection_errors(frames, target)
    for f in range(3):
        torch.testing.assert_close(found[:, f : f + 1], photometric_error(frames[f], target))
