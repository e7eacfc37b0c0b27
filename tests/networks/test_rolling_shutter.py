"""Warps, splats, complementary flow reversal and time maps against their formulas, and a read-out that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from selftaught import UserError, networks
from selftaught.networks import DRSC, PWCNet, frame_rows, redistorted, reversed_flows, splat, time_codes, time_maps
from selftaught.networks.drsc import ContextNet, SynthesisNet, VelocityNet

G = torch.Generator().manual_seed(11)


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=G, dtype=torch.float64)


def splat_by_loops(values: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, _, height, width = values.shape
    total, weights = np.zeros_like(values), np.zeros((n, 1, height, width))
    for b in range(n):
        for y in range(height):
            for x in range(width):
                u, v = flow[b, 0, y, x], flow[b, 1, y, x]
                for i in (math.floor(u), math.floor(u) + 1):
                    for j in (math.floor(v), math.floor(v) + 1):
                        if 0 <= x + i < width and 0 <= y + j < height:
                            w = math.exp(-((u - i) ** 2) - (v - j) ** 2)
                            total[b, :, y + j, x + i] += w * values[b, :, y, x]
                            weights[b, 0, y + j, x + i] += w
    return total, weights


def test_splat_is_the_sum_over_four_neighbours() -> None:
    values, flow = draw(2, 3, 5, 7), draw(2, 2, 5, 7, scale=2.0)
    wanted = splat_by_loops(values.numpy(), flow.numpy())
    for one, other in zip(splat(values, flow), wanted, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-12)
    lone = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    lone[0, 0, 1, 1] = 1
    thrown, _ = splat(lone, torch.zeros(1, 2, 4, 4, dtype=torch.float64))
    near = [1, math.exp(-1), math.exp(-1), math.exp(-2)]
    np.testing.assert_allclose(thrown[0, 0, [1, 1, 2, 2], [1, 2, 1, 2]].numpy(), near)


def test_splat_has_gradients_to_values_and_flow() -> None:
    values, flow = draw(1, 1, 3, 4).requires_grad_(), draw(1, 2, 3, 4, scale=0.7).requires_grad_()
    assert torch.autograd.gradcheck(splat, (values, flow))


def test_flow_reversal_is_its_formula() -> None:
    ab, ba, t = draw(2, 2, 5, 6, scale=2), draw(2, 2, 5, 6, scale=2), torch.rand(2, 1, 5, 6, generator=G).double()
    a, weight_a = splat_by_loops(ab.numpy(), (t * ab).numpy())
    b, weight_b = splat_by_loops(ba.numpy(), ((1 - t) * ba).numpy())
    s = t.numpy()
    n = (1 - s) * weight_a + s * weight_b
    n[n == 0] = 1
    wanted = (-(1 - s) * s * a + s**2 * b) / n, ((1 - s) ** 2 * a - s * (1 - s) * b) / n
    for one, other in zip(reversed_flows(ab, ba, t), wanted, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-12)


def test_flow_reversal_is_exact_for_a_constant_motion_whatever_the_times() -> None:
    u = torch.tensor([1.3, -2.6], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 20, 24)
    t = torch.rand(1, 1, 20, 24, generator=G).double()
    to_a, to_b = reversed_flows(u, -u, t)
    inner = (slice(None), slice(None), slice(5, 15), slice(5, 19))
    torch.testing.assert_close(to_a[inner], (-t * u)[inner])
    torch.testing.assert_close(to_b[inner], ((1 - t) * u)[inner])
    some = draw(1, 2, 6, 6)
    assert not reversed_flows(some, draw(1, 2, 6, 6), torch.zeros(1, 1, 6, 6).double())[0].any()
    assert not reversed_flows(some, draw(1, 2, 6, 6), torch.ones(1, 1, 6, 6).double())[1].any()


def test_warp_follows_the_flow_and_masks_what_lies_outside() -> None:
    image = draw(1, 2, 6, 8)
    flow = torch.zeros(1, 2, 6, 8, dtype=torch.float64)
    flow[:, 0], flow[:, 1] = 2, -1
    found = networks.flow_warp(image, flow, align_corners=True)
    torch.testing.assert_close(found[..., 1:, :6], image[..., :-1, 2:])
    assert not found[..., 0, :].any()
    assert not found[..., 6:].any()
    kept = networks.flow_warp(image, flow, align_corners=True, masked=False)
    torch.testing.assert_close(kept[..., 1:, 7], image[..., :-1, 7])
    off = networks.flow_warp(image, 0 * flow)  # half a pixel off at the border, which is masked
    assert not off[..., 0, :].any()
    assert off[..., 2:4, 3:5].any()
    both = networks.clamped_warp(image, torch.cat((flow, 0 * flow), 1))
    torch.testing.assert_close(both[:, 2:], image)
    torch.testing.assert_close(both[:, :2, 1:, 7], image[..., :-1, 7])


def test_time_maps_by_rows() -> None:
    height, r = 33, 12
    rows = frame_rows(height, 3, torch.zeros(1, dtype=torch.float64))
    y = np.arange(height)
    down, up = (time_maps(rows, r / (height - 1), name) for name in ("t2b", "b2t"))
    g = np.where(y >= r, (y - r) / (height - 1 - r), 0)
    for found, wanted in zip(down, (np.minimum(y / r, 1), g, y <= r), strict=True):
        np.testing.assert_allclose(found[0, 0, :, 1].numpy(), wanted, atol=1e-12)
    for one, other in zip(down, up, strict=True):
        torch.testing.assert_close(one.flip(2), other)
    codes = time_codes(rows, torch.tensor([[0, r / (height - 1), 1]], dtype=torch.float64))
    np.testing.assert_allclose(codes[0, 1, :, 0].numpy(), (y - r) / (height - 1), atol=1e-12)
    np.testing.assert_allclose(codes[0, 4, :, 0].numpy(), (height - 1 - r - y) / (height - 1), atol=1e-12)
    assert codes[0, 1, r, 0] == 0
    torch.testing.assert_close(networks.scan_time(rows, "t2b") + networks.scan_time(rows, "b2t"), torch.ones_like(rows))
    with pytest.raises(UserError, match="between 0 and 1"):
        time_maps(rows, 0.0, "t2b")


def texture(x: Tensor, y: Tensor) -> Tensor:
    waves = ((0.21, 0.13, 0.3), (-0.12, 0.2, 1.1), (0.3, -0.05, 2.0))
    return 0.5 + torch.stack([torch.sin(a * x + b * y + c) for a, b, c in waves]).sum(0) / 6


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b)[..., 10:-10, 10:-10].square().mean()))


def test_a_known_read_out_is_made_again_and_swapped_times_spoil_it() -> None:
    height, width, velocity = 64, 72, torch.tensor([6.0, 1.5], dtype=torch.float64)
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (height, width)), indexing="ij")

    def at(time: Tensor | float) -> Tensor:
        return texture(x - velocity[0] * time, y - velocity[1] * time)[None, None]

    rows = frame_rows(height, width, x)
    instant = 0.375
    frames = torch.stack((at(0.0), at(instant), at(1.0)), 1)
    motion = velocity.view(1, 2, 1, 1).expand(1, 2, height, width)
    spans = {"01": 1.0, "0i": instant, "i1": 1 - instant}
    flows = {name: span * motion for name, span in spans.items()}
    flows |= {name[::-1]: -span * motion for name, span in spans.items()}
    made = redistorted(frames, flows, rows, instant, align_corners=True)
    seen = {"t2b": at(rows[0, 0]), "b2t": at(1 - rows[0, 0])}
    for name, picture in made.items():
        assert psnr(picture, seen[name[:3]]) > 30, name
        assert psnr(picture, seen["b2t" if name[:3] == "t2b" else "t2b"]) < psnr(picture, seen[name[:3]]) - 5
    alone = redistorted(frames, flows, rows, instant, mid=False, align_corners=True)
    assert list(alone) == ["t2b", "b2t"]
    still = redistorted(frames[:, :1].expand(-1, 3, -1, -1, -1), {k: 0 * v for k, v in flows.items()}, rows, instant,
                        align_corners=True)  # fmt: skip
    for picture in still.values():
        torch.testing.assert_close(picture, frames[:, 0])
    with pytest.raises(UserError, match="0i, i0, i1, 1i missing"):
        redistorted(frames, {"01": motion, "10": -motion}, rows, instant)


def test_drsc_has_the_papers_sizes_and_blends_what_it_warps() -> None:
    whole = DRSC()
    counts = [sum(p.numel() for p in part.parameters()) for part in (whole.velocity, whole.context, whole.synthesis)]
    assert counts == [15_457_344, 1_453_856, 11_847_960]
    net = DRSC(width=4, flow_widths=(8, 8, 4, 4)).eval()
    first, second = torch.rand(2, 2, 3, 32, 64, generator=G)
    codes = time_codes(frame_rows(32, 64).repeat(2, 1, 1, 1), torch.tensor([[0, 0.25, 1], [0, 0.5, 1]]))
    found = net(first, second, codes)
    assert found.frames.shape == (2, 3, 3, 32, 64)
    assert [tuple(f.shape) for f in found.flows] == [(2, 12, 16, 32)] * 4
    net.begin_with_mean()
    plain = net(first, second, codes).frames  # no flow, half of each, no residual
    torch.testing.assert_close(plain, ((first + second) / 2)[:, None].expand(-1, 3, -1, -1, -1))
    with pytest.raises(UserError, match="multiples of 32"):
        net(first[..., :30], second[..., :30], codes[..., :30])
    with pytest.raises(UserError, match="codes"):
        net(first, second, codes[:, :4])
    assert isinstance(whole.context, ContextNet)
    assert isinstance(whole.synthesis, SynthesisNet)


def test_velocity_is_a_sum_times_the_time_codes() -> None:
    first, second = torch.rand(2, 1, 3, 32, 32, generator=G)
    codes = time_codes(frame_rows(32, 32), torch.tensor([[0, 0.5, 1.0]]))
    torch.manual_seed(0)
    plain = VelocityNet(widths=(4, 4, 4, 4))
    other = VelocityNet(widths=(4, 4, 4, 4), released=True)
    other.load_state_dict(plain.state_dict())
    half = torch.nn.functional.avg_pool2d(codes, 2).repeat_interleave(2, 1)
    flows, velocity = plain(first, second, codes)
    torch.testing.assert_close(flows[-1], plain.mixers[3](velocity * half))
    theirs, _ = other(first, second, codes)
    torch.testing.assert_close(theirs[0], flows[0])
    assert not torch.allclose(theirs[1], flows[1])


def test_pwc_net_has_the_papers_size_and_takes_weights_of_its_ports(tmp_path: object) -> None:
    net = PWCNet()
    assert sum(p.numel() for p in net.parameters()) == 9_374_274
    a, b = draw(1, 3, 4, 5), draw(1, 3, 4, 5)
    found = networks.correlation(a, b, 1)
    assert found.shape == (1, 9, 4, 5)
    torch.testing.assert_close(found[0, 1 * 3 + 2, 2, 1], (a[0, :, 2, 1] * b[0, :, 2, 2]).mean())
    torch.testing.assert_close(found[0, 0, 2, 1], (a[0, :, 2, 1] * b[0, :, 1, 0]).mean())
    assert found[0, 0, 0, 0] == 0
    path = f"{tmp_path}/pwc.pth"
    torch.save(as_port(net), path)
    again = networks.pwc_net(path)
    x, y = torch.rand(2, 1, 3, 40, 70, generator=G)
    torch.testing.assert_close(again(x, y), net(x, y))
    assert again(x, y).shape == (1, 2, 40, 70)
    torch.save({"some": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not PWC-Net's"):
        networks.pwc_net(path)
    with pytest.raises(UserError, match="no such file"):
        networks.pwc_net("nowhere.pth")


def as_port(net: PWCNet) -> dict[str, Tensor]:
    """The names of the PyTorch ports of PWC-Net."""
    levels = ("One", "Two", "Thr", "Fou", "Fiv", "Six")
    found = {}
    for name, value in net.state_dict().items():
        part, *rest = name.split(".")
        if part == "pyramid":
            found[".".join(["netExtractor", f"net{levels[int(rest[0])]}", *rest[1:]])] = value
        elif part == "refiner":
            found[".".join(["netRefiner", "netMain", *rest])] = value
        else:
            level, inner, *tail = rest
            words = {"upflow": ["netUpflow"], "upfeatures": ["netUpfeat"], "flow": ["netSix", "0"]}.get(inner)
            words = words or [f"net{levels[int(tail.pop(0))]}"]
            found[".".join([f"net{('Six', 'Fiv', 'Fou', 'Thr', 'Two')[int(level)]}", *words, *tail])] = value
    return found


def test_lucas_kanade_finds_motions_and_the_small_net_begins_with_it() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(72.0), indexing="ij")
    second = texture(x, y).expand(1, 3, -1, -1)
    flow = networks.synthetic_flow(1, 64, 72, most=4.0, generator=torch.Generator().manual_seed(1))
    first = networks.flow_warp(second, flow, align_corners=True, masked=False)
    found = networks.lucas_kanade(first, second)
    inner = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    assert (found - flow)[inner].norm(dim=1).mean() < 0.1 * flow[inner].norm(dim=1).mean()
    torch.testing.assert_close(networks.SmallFlowNet(3)(first, second), found)
    a, b = draw(1, 1, 9, 9).requires_grad_(), draw(1, 1, 9, 9).requires_grad_()
    steps = {"levels": 1, "iterations": 1, "damping": 1.0}
    assert torch.autograd.gradcheck(lambda p, q: networks.lucas_kanade(p, q, **steps), (a, b), atol=1e-4)


def test_synthetic_flows_are_smooth_and_within_reach() -> None:
    flow = networks.synthetic_flow(8, 20, 30, most=5.0, bend=0.2, generator=torch.Generator().manual_seed(0))
    assert flow.shape == (8, 2, 20, 30)
    assert flow.abs().max() < 5 * (1 + 5 * 0.2)
    assert flow.diff(dim=3).abs().max() < 1.0
    assert flow.mean((2, 3)).abs().max() > 2
