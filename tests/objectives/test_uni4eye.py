"""Gradient maps and the dual loss of Uni4Eye."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.objectives.uni4eye import uni4eye_terms

G = torch.Generator().manual_seed(0)


def test_sobel_in_two_and_three_axes_is_scipys() -> None:
    for size in ((6, 7), (4, 6, 5)):
        x = torch.rand(2, 3, *size, generator=G, dtype=torch.float64)
        found = objectives.gradient_map(x, scale=1.0, eps=0.0)
        for image, g in zip(x.flatten(0, 1).numpy(), found.flatten(0, 1).numpy(), strict=True):
            sides = [ndimage.sobel(image, axis=axis, mode="nearest") for axis in range(len(size))]
            np.testing.assert_allclose(g, np.sqrt(sum(s * s for s in sides)), atol=1e-10)


def test_facts_of_the_gradient() -> None:
    x = torch.rand(1, 1, 8, 8, generator=G)
    g = objectives.gradient_map(x)
    assert objectives.gradient_map(torch.full_like(x, 0.3)).max() < 1e-5
    assert torch.allclose(objectives.gradient_map(x + 5), g, atol=1e-5)
    assert torch.allclose(objectives.gradient_map(-x), g)
    assert torch.allclose(objectives.gradient_map(x.rot90(1, (2, 3))), g.rot90(1, (2, 3)), atol=1e-6)
    ramp = 0.7 * torch.arange(8.0).expand(1, 1, 8, 8)
    assert torch.allclose(objectives.gradient_map(ramp, scale=1.0)[..., 1:-1], torch.full((1, 1, 8, 6), 5.6))
    assert torch.allclose(objectives.gradient_map(ramp)[..., 1:-1], torch.full((1, 1, 8, 6), 0.7))
    volume = ramp.expand(4, 1, 8, 8)[None].transpose(1, 2)
    assert torch.allclose(objectives.gradient_map(volume, scale=1 / 32)[..., 1:-1], torch.tensor(0.7))
    assert not objectives.gradient_map(x.clone().requires_grad_()).requires_grad
    average = objectives.gradient_map(torch.rand(2, 3, 9, 9, generator=G), operator="l1_avg", padding="reflect")
    assert average.max() <= 1
    assert torch.equal(average[:, 0], average[:, 2])
    with pytest.raises(UserError, match="of images"):
        objectives.gradient_map(volume, operator="l1_avg")


def test_the_dual_loss() -> None:
    intensity, gradient, patches, steep = (torch.rand(2, 6, 12, generator=G) for _ in range(4))
    mask = torch.rand(2, 6, generator=G) > 0.5
    first = ((intensity - patches).square().mean(2) * mask).sum() / mask.sum()
    second = ((gradient - steep).square().mean(2) * mask).sum() / mask.sum()
    found = uni4eye_terms(intensity, gradient, patches, steep, mask, beta=0.5)
    assert found["loss"].item() == pytest.approx((first + 0.5 * second).item(), rel=1e-5)
    alone = objectives.uni4eye(intensity, gradient, patches, steep, mask, beta=0.0, norm_pix=True)
    assert alone.item() == pytest.approx(objectives.mae(intensity, patches, mask).item())
    nothing = objectives.uni4eye(intensity, gradient, patches, steep, torch.zeros_like(mask))
    assert nothing.item() == 0
    wide = [t.repeat(1, 1, 3) for t in (intensity, gradient, patches, steep)]
    assert uni4eye_terms(*wide, mask)["loss"].item() == pytest.approx(first.item() + second.item(), rel=1e-5)
    live = intensity.clone().requires_grad_()
    objectives.uni4eye(live, gradient, patches, steep, mask).backward()
    assert (live.grad[~mask] == 0).all()
