"""Wiener layer, INFWIDE's networks, the classical methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from selftaught.errors import UserError
from selftaught.networks.deconvolution import ClassicalDeconvolution, Deconvolver, extended
from selftaught.networks.infwide import DWDN, INFWIDE, ResUNet, XRFUNet
from selftaught.networks.wiener import circular_blur, estimated_nsr, median3, noise_map, otf, wiener

SMALL: dict[str, Any] = {"features": 4, "width": 4, "denoiser": (4, 4, 8, 8)}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decibels(a: Tensor, b: Tensor, edge: int = 0) -> float:
    inner = (a - b)[..., edge : a.shape[-2] - edge, edge : a.shape[-1] - edge]
    return float(-10 * inner.square().mean().log10())


def photo(height: int, width: int) -> Tensor:
    picture = data.chelsea()[:height, :width] / 255.0
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


def test_weights_of_the_paper() -> None:
    with torch.device("meta"):
        net = INFWIDE()
    counts = [sum(p.numel() for p in m.parameters()) for m in (net.extractor, net.denoiser, net.refinement, net.fusion)]
    assert counts == [39712, 4254240, 6894467, 4553923]
    assert sum(p.numel() for p in net.parameters()) == 15742342


def test_a_delta_divides_by_one_and_the_ratio() -> None:
    u, delta = draw(2, 3, 12, 14), torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    delta[:, :, 2, 2] = 7  # normalised
    for pad in ("replicate", "circular"):
        torch.testing.assert_close(wiener(u, delta, nsr=0.25, pad=pad), u / 1.25)  # type: ignore[arg-type]


def test_blur_without_noise_comes_back_and_a_turned_kernel_does_not_do() -> None:
    x = photo(120, 140)
    kernel = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    kernel[0, 0, 4, 4], kernel[0, 0, 6, 7], kernel[0, 0, 5, 8] = 0.6, 0.25, 0.15
    y = circular_blur(x, kernel)
    assert decibels(wiener(y, kernel, nsr=1e-8, pad="circular"), x) > 60
    assert decibels(wiener(y, kernel.flip(2, 3), nsr=1e-8, pad="circular"), x) < decibels(y, x)
    rolled = 0.6 * x + 0.25 * x.roll((2, 3), (2, 3)) + 0.15 * x.roll((1, 4), (2, 3))
    torch.testing.assert_close(y, rolled)


def test_more_noise_is_worse_in_order() -> None:
    x = photo(200, 300)
    kernel = torch.full((1, 1, 1, 9), 1 / 9, dtype=torch.float64)
    kernel = torch.nn.functional.pad(kernel, (0, 0, 4, 4))
    y = circular_blur(x, kernel)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [decibels(wiener(y + sigma * noise, kernel), x, 20) for sigma in (0, 0.002, 0.01, 0.03)]
    assert found == sorted(found, reverse=True)
    assert found[0] > decibels(y, x, 20) + 3


def test_the_estimated_ratio_as_written() -> None:
    u = draw(2, 3, 7, 9)
    found = estimated_nsr(u)
    for n in range(2):
        for c in range(3):
            plane = u[n, c].numpy()
            wide = np.pad(plane, 1, mode="reflect")
            median = np.array([[np.median(wide[i : i + 3, j : j + 3]) for j in range(9)] for i in range(7)])
            v = median - plane
            count = 7 * 7
            noise = ((v - v.sum() / count) ** 2).sum() / (count - 1)
            signal = np.sqrt(((plane - plane.sum() / count) ** 2).sum() / (count - 1))
            assert found[n, c].item() == pytest.approx(noise / signal * 8 / 30, rel=1e-9)
            torch.testing.assert_close(median3(u)[n, c], torch.from_numpy(median))
            level = np.sqrt((median**2).sum() / (63 - 1))
            expected = np.sqrt(((v - v.mean()) ** 2).sum() / 62) / level
            torch.testing.assert_close(noise_map(u)[n, c], torch.full((7, 9), expected, dtype=torch.float64))
    flat = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
    ratio = estimated_nsr(flat)
    ratio.sum().backward()
    assert ratio.item() == 0
    assert torch.isfinite(flat.grad).all()  # type: ignore[arg-type]


def test_gradients_go_through_the_ratio() -> None:
    u, kernel = draw(1, 1, 6, 7).requires_grad_(), draw(1, 1, 3, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: wiener(x, kernel), (u,), atol=1e-4)
    (whole,) = torch.autograd.grad(wiener(u, kernel).square().sum(), u)
    wide = torch.nn.functional.pad(u, (3, 3, 3, 3), mode="replicate")
    fixed = wiener(u, kernel, nsr=estimated_nsr(wide).detach())
    (part,) = torch.autograd.grad(fixed.square().sum(), u)
    assert not torch.allclose(whole, part)


def test_even_kernels_have_their_middle_behind() -> None:
    kernel = torch.zeros(1, 1, 4, 4)
    kernel[0, 0, 2, 2] = 1
    torch.testing.assert_close(otf(kernel, (8, 8)), torch.ones(1, 1, 8, 5, dtype=torch.complex64))


@pytest.mark.parametrize("branches", ["both", "image", "feature"])
@pytest.mark.parametrize("channels", [1, 3])
def test_branches_have_their_sizes_and_all_weights_learn(branches: Any, channels: int) -> None:
    net = INFWIDE(channels, branches=branches, **SMALL)
    y, kernel = draw(2, channels, 26, 30).float(), draw(2, 1, 5, 5).float()
    made = net(y, kernel)
    sizes = [(13, 15), (26, 30)] if branches == "both" else [(26, 30)]
    assert [tuple(one.shape[2:]) for one in made.images] == sizes
    (sum(one.square().sum() for one in made.images) + made.denoised.sum()).backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    if branches == "feature":
        assert made.denoised is y
    odd = net(y[..., :25, :27], kernel)
    assert odd.images[-1].shape[2:] == (25, 27)


@pytest.mark.parametrize("branches", ["both", "image", "feature"])
def test_it_can_begin_as_the_wiener_filter(branches: Any) -> None:
    torch.manual_seed(0)
    net = INFWIDE(3, branches=branches, features=4, width=4, denoiser=(4, 8, 8, 8))
    net.begin_with_wiener()
    y, kernel = torch.nn.functional.avg_pool2d(torch.rand(2, 3, 42, 38), 3, 1, 1), torch.rand(2, 1, 3, 3)
    wanted = wiener(y, kernel)
    made = net(y, kernel)
    torch.testing.assert_close(made.denoised, y)
    near = wanted if branches == "image" else wanted.clamp_min(0)  # what ReLUs let through
    scale = wanted.std()
    assert (made.images[-1] - near).abs().mean() < 0.1 * scale
    hue, wanted_hue = (one - one.mean(1, keepdim=True) for one in (made.images[-1], near))
    assert (hue - wanted_hue).abs().mean() < 0.1 * scale
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(3):  # a layer behind one of zeros learns from the second step on
        optimiser.zero_grad()
        sum(image.square().mean() for image in net(y, kernel).images).backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_beginning_as_the_wiener_filter_needs_room_for_the_colours() -> None:
    for sizes in ({"features": 2}, {"width": 2}, {"denoiser": (2, 4, 4, 4)}):
        with pytest.raises(UserError, match="channels"):
            INFWIDE(3, **{"features": 4, "width": 4, "denoiser": (4, 8, 8, 8)} | sizes).begin_with_wiener()


def test_baselines_and_parts() -> None:
    y, kernel = draw(1, 3, 24, 24).float(), draw(1, 1, 5, 5).float()
    assert DWDN(features=4, width=4)(y, kernel).images[0].shape == y.shape
    denoiser = ResUNet(3, (4, 4, 8))
    assert all(p.ndim > 1 for p in denoiser.parameters()), "a bias"
    p, q = torch.randn(1, 4, 12, 14), torch.randn(1, 4, 12, 14)
    assert [tuple(s.shape) for s in XRFUNet(4)(p, q)] == [(1, 4, 12, 14)] * 2
    x = photo(200, 240).float()
    kernel = torch.full((1, 1, 1, 9), 1 / 9)
    blurred = circular_blur(x, kernel)
    for kind in ("wiener", "richardson-lucy"):
        made = ClassicalDeconvolution(kind, nsr=1e-3, iterations=15)(blurred, kernel).images[-1]
        assert decibels(made, x, 40) > decibels(blurred, x, 40) + 1
    with pytest.raises(UserError, match="wiener or richardson-lucy"):
        ClassicalDeconvolution("inverse")


def test_tiles_and_borders() -> None:
    kernel = np.array([[0.05, 0.1, 0.05], [0.1, 0.5, 0.1], [0.0, 0.1, 0.0]], np.float32)
    x = photo(90, 400).float()
    net = Deconvolver(ClassicalDeconvolution("wiener", nsr=0.05), kernel)
    whole, parts = net(x), net(x, tile=64)
    assert (whole - parts).abs().max() < 1 / 255
    assert Deconvolver(ClassicalDeconvolution("wiener"), kernel, extend=True)(x).shape == x.shape
    wide = extended(x)
    assert wide.shape == (1, 3, 180, 800)
    torch.testing.assert_close(wide[..., 45:135, 200:600], x)
    torch.testing.assert_close(wide[..., 44, 200:600], x[..., 0, :])
    with pytest.raises(UserError, match="needs its kernel"):
        Deconvolver(ClassicalDeconvolution("wiener"))(x)
    with pytest.raises(UserError, match="sums to 0"):
        wiener(x, torch.zeros(1, 1, 3, 3))
