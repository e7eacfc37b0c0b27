"""Depth networks: the papers' sizes, geometry against the textbook form, and the cost volume's facts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from selftaught.errors import UserError
from selftaught.networks import (
    DepthDecoder,
    MultiFrameNet,
    PoseNet,
    axis_angle_rotation,
    backproject,
    cost_volume,
    depth_bins,
    depth_net,
    depth_to_disparity,
    disparity_to_depth,
    fill_missing,
    intrinsics_matrix,
    matching_distribution,
    modulate_cost_volume,
    pose_matrix,
    project,
    sampling_grid,
    single_frame_distribution,
    static_weight,
    track_depth_range,
    warp,
)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_networks_have_the_papers_sizes() -> None:
    with torch.device("meta"):
        nets = {name: depth_net(name) for name in ("resnet18", "lite-mono-8m", "mpvit-small")}
        pose = PoseNet()
    sizes = {name: (net.encoder.channels, count(net.encoder)) for name, net in nets.items()}
    assert sizes["resnet18"] == ((64, 64, 128, 256, 512), 11_176_512)
    assert sizes["lite-mono-8m"] == ((64, 64, 128, 224), 8_134_776)
    assert sizes["mpvit-small"] == ((64, 128, 216, 288, 288), 22_603_400)
    assert count(nets["resnet18"].decoder) == 3_152_724
    assert 27e6 < count(nets["mpvit-small"]) < 28e6
    assert (count(pose.decoder), count(pose)) == (1_314_572, 12_500_492)


@pytest.mark.parametrize("name", ["small", "lite-mono-8m"])
def test_maps_and_scales(name: str) -> None:
    net = depth_net(name).eval()
    with torch.inference_mode():
        found = net(torch.rand(1, 3, 32, 64))
        assert {s: tuple(d.shape[2:]) for s, d in found.items()} == {0: (32, 64), 1: (16, 32), 2: (8, 16)}
        assert all(float(d.min()) > 0 and float(d.max()) < 1 for d in found.values())
    with pytest.raises(UserError, match="multiples of 16 from 32 on, such as 48x32"):
        net(torch.rand(1, 3, 30, 50))
    with pytest.raises(UserError, match="scales"):
        DepthDecoder((8, 8), scales=(3,))


# ---- geometry ----------------------------------------------------------------------------------------------------
def scene(n: int = 2, height: int = 5, width: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    depth = 1 + torch.rand(n, 1, height, width, dtype=torch.float64)
    shares = torch.tensor([[0.6, 0.8, 0.45, 0.55]], dtype=torch.float64).repeat(n, 1)
    angle, shift = 0.1 * torch.randn(n, 3, dtype=torch.float64), 0.1 * torch.randn(n, 3, dtype=torch.float64)
    return depth, intrinsics_matrix(shares, height, width), angle, shift


def test_rotation_is_rodrigues() -> None:
    v = torch.tensor([[0.0, 0.0, np.pi / 2], [0.3, -0.2, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = axis_angle_rotation(v)
    k = torch.zeros(3, 3, 3, dtype=torch.float64)
    k[:, 2, 1], k[:, 0, 2], k[:, 1, 0] = v.unbind(1)
    k = k - k.transpose(1, 2)
    torch.testing.assert_close(found, torch.linalg.matrix_exp(k), atol=1e-6, rtol=0)
    inverse = pose_matrix(v, v, invert=True) @ pose_matrix(v, v)
    torch.testing.assert_close(inverse, torch.eye(4, dtype=torch.float64).expand(3, 4, 4), atol=1e-6, rtol=0)


def test_the_grid_is_the_textbook_one() -> None:
    depth, camera, angle, shift = scene()
    transform = pose_matrix(angle, shift)
    wanted = project(backproject(depth, torch.linalg.inv(camera)), camera, transform, 5, 7)
    torch.testing.assert_close(sampling_grid(depth, camera, transform), wanted, atol=1e-6, rtol=0)
    for n in range(2):  # one pixel by hand
        point = (
            float(depth[n, 0, 3, 2]) * torch.linalg.inv(camera[n]) @ torch.tensor([2.0, 3.0, 1.0], dtype=torch.float64)
        )
        seen = camera[n] @ (transform[n, :3, :3] @ point + transform[n, :3, 3])
        x, y = (seen[:2] / seen[2]).tolist()
        hand = torch.tensor([2 * x / 6 - 1, 2 * y / 4 - 1], dtype=torch.float64)
        torch.testing.assert_close(wanted[n, 3, 2], hand, atol=1e-6, rtol=0)


def test_the_grid_has_right_derivatives() -> None:
    depth, camera, angle, shift = scene(1, 3, 4)
    inputs = tuple(x.requires_grad_() for x in (depth, angle, shift))

    def grid(d: Tensor, a: Tensor, t: Tensor) -> Tensor:
        return sampling_grid(d, camera, pose_matrix(a, t))

    assert gradcheck(grid, inputs)
    assert gradgradcheck(grid, inputs)


def test_standing_still_is_the_identity_and_a_crop_moves_the_axis() -> None:
    depth, camera, _, _ = scene()
    image, still = torch.rand(2, 3, 5, 7, dtype=torch.float64), torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    torch.testing.assert_close(warp(image, depth, camera, still), image, atol=1e-5, rtol=0)
    large = torch.rand(1, 1, 8, 10, dtype=torch.float64) + 1
    moved = pose_matrix(torch.full((1, 3), 0.05, dtype=torch.float64), torch.full((1, 3), 0.1, dtype=torch.float64))
    whole = intrinsics_matrix(torch.tensor([[0.6, 0.8, 0.5, 0.5]], dtype=torch.float64), 8, 10)
    full = (sampling_grid(large, whole, moved) + 1) / 2 * torch.tensor([9.0, 7.0])
    part = sampling_grid(large[:, :, 2:6, 3:8], whole, moved, torch.tensor([[3.0, 2.0]], dtype=torch.float64))
    pixels = (part + 1) / 2 * torch.tensor([4.0, 3.0]) + torch.tensor([3.0, 2.0])
    torch.testing.assert_close(pixels, full[:, 2:6, 3:8], atol=1e-6, rtol=0)


def test_disparity_and_depth() -> None:
    scaled, depth = disparity_to_depth(torch.tensor([0.0, 1.0, 0.5]))
    torch.testing.assert_close(scaled, torch.tensor([0.01, 10.0, 5.005]))
    torch.testing.assert_close(depth_to_disparity(depth), torch.tensor([0.0, 1.0, 0.5]))
    with pytest.raises(UserError, match="0 < min_depth"):
        disparity_to_depth(depth, 1.0, 1.0)
    with pytest.raises(UserError, match="intrinsics and transform"):
        sampling_grid(torch.ones(2, 1, 4, 4), torch.eye(3).expand(1, 3, 3), torch.eye(4).expand(2, 4, 4))


def test_autocast_leaves_geometry_exact() -> None:
    depth, camera, angle, shift = (x.float() for x in scene())
    wanted = sampling_grid(depth, camera, pose_matrix(angle, shift))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(sampling_grid(depth, camera, pose_matrix(angle, shift)), wanted)


# ---- cost volume -------------------------------------------------------------------------------------------------
def test_bins() -> None:
    sid = depth_bins(0.12, 6.92, 5)
    wanted = [np.exp(np.log(0.12) + np.log(6.92 / 0.12) * k / 4) for k in range(5)]
    np.testing.assert_allclose(sid.numpy(), wanted, rtol=1e-6)
    assert depth_bins(1, 4, 4, "linear").tolist() == [1, 2, 3, 4]
    torch.testing.assert_close(1 / depth_bins(1, 4, 4, "inverse"), torch.tensor([1, 0.75, 0.5, 0.25]))
    low, high = track_depth_range(torch.tensor(0.1), torch.tensor(10.0), torch.tensor([[[[0.5, 2.0]]]]))
    torch.testing.assert_close(torch.stack((low, high)), torch.tensor([0.99 * 0.1 + 0.01 * 0.45, 9.9 + 0.01 * 2.2]))


def _volume(n: int = 1, bins: int = 6) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(n, bins, 4, 5) + 0.1


def test_agreement_leaves_the_best_match_and_the_range() -> None:
    c = _volume()
    prior = single_frame_distribution(depth_bins(0.5, 4, 6), torch.ones(1, 1, 4, 5), torch.ones(1, 1, 4, 5))
    made = modulate_cost_volume(c, prior, torch.ones(1, 1, 4, 5))
    assert torch.equal(made.argmin(1), c.argmin(1))
    torch.testing.assert_close(made.amin(1), c.amin(1))
    torch.testing.assert_close(made.amax(1), c.amax(1), atol=1e-5, rtol=0)
    assert torch.equal(modulate_cost_volume(c, prior, torch.zeros(1, 1, 4, 5), modulation="none"), c)


def test_disagreement_takes_the_single_frame() -> None:
    bins = depth_bins(0.5, 4, 6)
    prior = single_frame_distribution(bins, torch.full((1, 1, 4, 5), 1.2), torch.full((1, 1, 4, 5), 0.3))
    nearest = int((bins - 1.2).abs().argmin())
    for modulation in ("full", "hard"):
        made = modulate_cost_volume(_volume(), prior, torch.zeros(1, 1, 4, 5), modulation=modulation)
        assert (made.argmin(1) == nearest).all()
    below, above = (modulate_cost_volume(_volume(), prior, torch.full((1, 1, 4, 5), w)) for w in (0.399, 0.401))
    assert (below - above).abs().max() > 0.05
    mixed = matching_distribution(_volume()) ** 0.3 * prior**0.7
    made = modulate_cost_volume(_volume(), prior, torch.full((1, 1, 4, 5), 0.3))
    assert torch.equal(made.argmin(1), mixed.argmax(1))


def test_matching_sees_no_scale_and_constant_costs_are_no_nan() -> None:
    c = _volume()
    torch.testing.assert_close(matching_distribution(3 * c + 2), matching_distribution(c), atol=1e-4, rtol=0)
    flat = torch.full((1, 6, 2, 2), 0.3)
    assert not matching_distribution(flat).any()
    made = modulate_cost_volume(flat, torch.rand(1, 6, 2, 2), torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(made, flat)
    assert not modulate_cost_volume(0 * flat, torch.rand(1, 6, 2, 2), torch.ones(1, 1, 2, 2)).any()


def test_weight_is_the_equation() -> None:
    a, b = torch.tensor([[[[2.0]]]]), torch.tensor([[[[1.0]]]])
    assert abs(float(static_weight(a, b)) - np.exp(-2 / 3 * 1) * np.exp(-2 / 3 * 0.5)) < 1e-6
    assert static_weight(a, a) == 1


def test_a_plane_is_found_at_its_depth_and_a_missing_frame_says_nothing() -> None:
    torch.manual_seed(0)
    coarse = torch.rand(1, 4, 6, 8)
    wide = nn.functional.interpolate(coarse, size=(24, 32), mode="bicubic")
    camera = intrinsics_matrix(torch.tensor([[1.0, 1.33, 0.5, 0.5]]), 24, 32)
    move = torch.eye(4)[None].clone()
    move[0, 0, 3] = 0.25
    bins = depth_bins(1, 4, 7, "linear")
    # the other frame sees a plane at depth 2 shifted by f t / d = 32 * 0.25 / 2 = 4 pixels
    other = torch.roll(wide, 4, 3) + 1e-3 * torch.randn_like(wide)  # a cost of exactly 0 counts as missing
    found = fill_missing(cost_volume(wide, other[None], move[None], camera, bins))
    assert (bins[found.argmin(1)][0, 6:-6, 8:-8] == 2.0).float().mean() > 0.95
    assert not cost_volume(wide, other[None], 0 * move[None], camera, bins).any()
    still = cost_volume(wide, wide[None], torch.eye(4)[None, None], camera, bins)
    assert still.abs().max() < 1e-4
    both = cost_volume(wide, torch.stack((other, wide)), torch.stack((move, 0 * move)), camera, bins)
    torch.testing.assert_close(both, cost_volume(wide, other[None], move[None], camera, bins))


def test_gradients_of_the_multi_frame_network_end_where_they_should() -> None:
    torch.manual_seed(0)
    net = MultiFrameNet("small", "small", bins=6)
    image, before = torch.rand(1, 3, 32, 32), torch.rand(1, 1, 3, 32, 32)
    single, sigma = net.teacher(image)
    pose = torch.eye(4)[None, None].clone().requires_grad_()
    found = net.match(image, before, pose, torch.tensor([[0.8, 0.8, 0.5, 0.5]]), single, sigma)
    assert not found.modulated.requires_grad
    found.aux.mean().backward(retain_graph=True)
    assert all(p.grad is None for p in net.encoder.parameters())
    assert any(p.grad is not None for p in net.aux.parameters())
    net.zero_grad()
    found.disparities[0].mean().backward()
    assert pose.grad is None
    assert all(p.grad is None for part in (net.single, net.aux) for p in part.parameters())
    assert any(p.grad is not None and p.grad.any() for p in net.encoder.parameters())
