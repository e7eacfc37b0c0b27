"""Compiled splatting against the plain form: pictures, every gradient, its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.networks import Gaussians, quaternion_rotation, render_gaussians

pytest.importorskip("numba")

SIZE = (21, 30)


def scene(count: int) -> Gaussians:
    """Before, behind and beside a camera at the origin; some thin, some opaque, some all but unseen."""
    g = torch.Generator().manual_seed(2)
    means = torch.randn(count, 3, generator=g) + torch.tensor([0.0, 0, 2])
    scales = 0.3 * torch.rand(count, 3, generator=g) ** 2 + 0.01
    opacities = (1.1 * torch.rand(count, generator=g)).clamp(0.002, 1.0)
    return Gaussians(means, torch.randn(count, 4, generator=g), scales, opacities, torch.rand(count, 2, generator=g))


def both_ways(
    parts: Gaussians, backend: str, dtype: torch.dtype, size: tuple[int, int] = SIZE, centre: float = 0.5
) -> list[Tensor]:
    """Picture, depth and alpha, then the gradients of eight inputs, as float64."""
    pose = torch.eye(4)
    pose[:3, :3], pose[:3, 3] = quaternion_rotation(torch.tensor([1, 0.05, -0.1, 0.2])), torch.tensor([0.1, -0.1, 0.2])
    camera = torch.tensor([[25.0, 0, size[1] / 2 + 1], [0, 24, size[0] / 2 - 1], [0, 0, 1]])
    background = torch.linspace(0.3, 0.8, parts.colours.shape[1])
    given = [x.detach().to(dtype).requires_grad_() for x in (*parts, camera, pose, background)]
    found = render_gaussians(Gaussians(*given[:5]), *given[5:7], size, given[7], pixel_centre=centre, backend=backend)
    weights = torch.Generator().manual_seed(3)
    loss = sum((x * torch.randn(x.shape, generator=weights).to(dtype)).sum() for x in found)
    loss.backward()
    return [x.detach().double() for x in found] + [x.grad.double() for x in given]


def assert_close_to_plain(parts: Gaussians, centre: float = 0.5) -> None:
    found = both_ways(parts, "numba", torch.float32, centre=centre)
    wanted = both_ways(parts, "torch", torch.float64, centre=centre)
    for a, b in zip(found[:3], wanted[:3], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(found[3:], wanted[3:], strict=True):
        assert b.norm() > 0
        assert (a - b).norm() < 1e-5 * b.norm()


@pytest.mark.parametrize(("centre", "colours"), [(0.5, 2), (0.0, 3), (0.5, 6)])
def test_pictures_and_gradients_are_those_of_the_plain_form_in_double_precision(centre: float, colours: int) -> None:
    g = scene(150)
    assert_close_to_plain(
        g._replace(colours=torch.rand(150, colours, generator=torch.Generator().manual_seed(4))), centre
    )


def test_the_kernels_are_the_choice_for_float32_on_a_cpu() -> None:
    g = scene(20)
    chosen, kernels, plain = (both_ways(g, backend, torch.float32)[0] for backend in ("auto", "numba", "torch"))
    assert chosen.equal(kernels)
    assert not chosen.equal(plain)  # equal but for rounding
    with pytest.raises(UserError, match="float32"):
        both_ways(g, "numba", torch.float64)


@pytest.mark.parametrize("count", [0, 1])
def test_few_gaussians(count: int) -> None:
    g = Gaussians(*(part[5 : 5 + count] for part in scene(20)))
    plain = both_ways(g, "torch", torch.float64)
    for a, b in zip(both_ways(g, "numba", torch.float32), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_nothing_is_seen_of_what_lies_behind_the_camera() -> None:
    g = scene(30)
    g.means[:, 2] = -g.means[:, 2].abs() - 1
    image, depth, alpha, *gradients = both_ways(g, "numba", torch.float32)
    assert image.equal(torch.tensor([0.3, 0.8]).double()[:, None, None].expand(2, *SIZE))
    assert not depth.any()
    assert not alpha.any()
    assert not any(x.any() for x in gradients[:7])
    assert gradients[7].all()


def test_threads_and_tiles_without_gaussians_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from selftaught.networks import _splat_fast

    g = scene(150)
    g.means[:, 0] -= 1.0  # the right of the picture is empty
    one = both_ways(g, "numba", torch.float32)
    monkeypatch.setattr(_splat_fast, "BUSY", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for a, b in zip(one, both_ways(g, "numba", torch.float32), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def test_hundreds_of_opaque_ones_leave_no_light_and_no_wrong_number() -> None:
    g = scene(400)
    near = g._replace(means=g.means * 0.02 + torch.tensor([0.0, 0, 2]), opacities=torch.full((400,), 1.0))
    assert both_ways(near, "numba", torch.float32)[2].max() == 1
    assert_close_to_plain(near)  # what lies before the place where the light ends has its gradient


@pytest.mark.parametrize("part", [1, 2, 4])
def test_what_is_no_number_is_not_hidden(part: int) -> None:
    g = scene(40)
    at = int((g.means[:, 2] > 1.5).nonzero()[0])
    g[part].view(40, -1)[at, 0] = float("nan")
    image = render_gaussians(g, torch.tensor([[25.0, 0, 15], [0, 24, 10], [0, 0, 1]]), torch.eye(4), SIZE).image
    assert image.isnan().any()
