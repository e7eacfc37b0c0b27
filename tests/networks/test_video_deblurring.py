"""The networks of DADeblur: sizes as published, the diffusion sampler, blur along a path, flow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from selftaught import networks
from selftaught.errors import UserError
from selftaught.networks.classical_flow import optical_flow
from selftaught.networks.reblurring import BlurDiffusion, ddim_times, diffusion_schedule, path_blur, sinusoidal_time


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_estrnn_has_the_published_size_and_sees_its_window_alone() -> None:
    assert count(networks.ESTRNN()) == pytest.approx(2.47e6, rel=1e-3)
    torch.manual_seed(0)
    net = networks.ESTRNN(width=4, blocks=2).eval()
    frames = torch.rand(1, 6, 3, 8, 12)
    with torch.no_grad():
        made = net(frames)
        assert made.shape == (1, 2, 3, 8, 12)
        torch.testing.assert_close(net(frames[:, :5]), made[:, :1])
    with pytest.raises(UserError, match="multiples of 4"):
        net(torch.rand(1, 5, 3, 9, 12))
    with pytest.raises(UserError, match="at least 5"):
        net(frames[:, :4])


def test_mmp_rnn_follows_its_prior_which_it_does_not_train() -> None:
    torch.manual_seed(0)
    net = networks.MMPRNN(width=4, blocks=1, back=1)
    frames = torch.rand(1, 5, 3, 16, 16)
    made = net(frames)
    made.sum().backward()  # type: ignore[no-untyped-call]
    assert made.shape == (1, 1, 3, 16, 16)
    assert all(p.grad is None for p in net.prior.parameters())
    with torch.no_grad():
        net.prior.out.bias += 3
        assert not torch.allclose(net(frames), made)
    assert networks.MotionMagnitudePrior()(torch.rand(2, 3, 18, 20)).shape == (2, 1, 18, 20)


def test_a_new_frame_stack_gives_the_middle_frame() -> None:
    frames = torch.rand(2, 6, 1, 7, 9)
    assert torch.equal(networks.FrameStack(1, width=4)(frames), frames[:, 2:4])


def test_the_magnitude_estimator_takes_any_size() -> None:
    small = {"each": 4, "widths": (4, 6, 6, 6, 6), "blocks": 1}
    for encoder in ("small", "resnet18"):
        net = networks.BlurMagnitude(1, encoder, **small).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            assert net(torch.rand(1, 1, 33, 70)).shape == (1, 1, 33, 70)


def test_the_noise_predictor_is_the_described_u_net() -> None:
    net = networks.BlurNoise()
    c, time = 64, 256
    block = lambda a, b: 9 * a * b + b + 9 * b * b + b + time * b + b + (a * b + b if a != b else 0)  # noqa: E731
    conv = lambda a, b: 9 * a * b + b  # noqa: E731
    down = block(c, c) * 2 + conv(c, c) + block(c, 2 * c) + block(2 * c, 2 * c) + conv(2 * c, 2 * c)
    down += block(2 * c, 3 * c) + block(3 * c, 3 * c)
    up = block(6 * c, 3 * c) * 2 + block(5 * c, 3 * c) + conv(3 * c, 3 * c)
    up += block(5 * c, 2 * c) + block(4 * c, 2 * c) + block(3 * c, 2 * c) + conv(2 * c, 2 * c)
    up += block(3 * c, c) + block(2 * c, c) * 2
    ends = conv(9, c) + conv(c, 3) + c * time + time + time * time + time
    assert count(net) == down + up + ends + 2 * block(3 * c, 3 * c)
    small = networks.BlurNoise(1, base=4, multipliers=(1, 2))
    assert small(torch.rand(2, 5, 6, 8), torch.tensor([0, 7])).shape == (2, 1, 6, 8)
    t = torch.tensor([0.0, 5.0])
    rates = 10000 ** (-np.arange(32) / 32)
    wanted = np.concatenate((np.sin(5 * rates), np.cos(5 * rates)))
    np.testing.assert_allclose(sinusoidal_time(t)[1].numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("taken", [1, 5, 20])
def test_ddim_with_the_true_noise_lands_on_abar_0(taken: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    model = BlurDiffusion(lambda x, t: eps)
    _, abar = diffusion_schedule()
    start = model.noised(x0, torch.full((2,), ddim_times(2000, taken)[0][0]), eps)
    told = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    found = model.ddim(x0, told, taken=taken, noise=start, bound=None)
    wanted = math.sqrt(abar[0]) * x0 + math.sqrt(1 - abar[0]) * eps
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert torch.equal(found, model.ddim(x0, told, taken=taken, noise=start, bound=None))


def test_the_schedule_and_the_times_of_the_sampler() -> None:
    beta, abar = diffusion_schedule()
    assert (float(beta[0]), float(beta[-1]), len(beta)) == (1e-6, 1e-2, 2000)
    np.testing.assert_allclose(abar.numpy(), np.cumprod(1 - np.linspace(1e-6, 1e-2, 2000)), rtol=1e-12)
    times = ddim_times()
    assert times[0] == (1901, 1801)
    assert times[-1] == (1, 0)
    with pytest.raises(UserError, match="sampling steps"):
        ddim_times(10, 8)


def test_ddpm_and_a_ddim_with_noise_are_drawn_by_their_generator() -> None:
    model = BlurDiffusion(lambda x, t: 0.1 * x[:, :3], steps=8)
    sharp, told = torch.rand(1, 3, 4, 4) - 0.5, torch.zeros(1, 3, 4, 4)

    def made(seed: int, kind: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        if kind == "ddpm":
            return model.ddpm(sharp, told, generator=generator)
        return model.ddim(sharp, told, taken=4, eta=1.0, generator=generator)

    for kind in ("ddpm", "ddim"):
        assert torch.equal(made(0, kind), made(0, kind))
        assert not torch.equal(made(0, kind), made(1, kind))
        assert made(0, kind).abs().max() <= 0.5


def test_blur_along_a_path_is_the_mean_over_it() -> None:
    image = torch.rand(1, 2, 9, 11, dtype=torch.float64)
    told = torch.zeros(1, 3, 9, 11, dtype=torch.float64)
    told[:, 0] = 1
    assert torch.allclose(path_blur(image, told), image)
    told[:, 2] = 4
    wanted = sum(image[..., 4, 5 + k] for k in range(-2, 3)) / 5
    torch.testing.assert_close(path_blur(image, told)[..., 4, 5], wanted)
    turned = told[:, [1, 0, 2]].transpose(2, 3)
    torch.testing.assert_close(path_blur(image.transpose(2, 3), turned), path_blur(image, told).transpose(2, 3))
    back = told * torch.tensor([-1.0, -1.0, 1.0]).view(3, 1, 1)
    torch.testing.assert_close(path_blur(image, back), path_blur(image, told))
    small = torch.rand(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: path_blur(x, told[..., :3, :4]), small)
    with pytest.raises(UserError, match="path_blur"):
        path_blur(image, told[:, :2])


@pytest.mark.parametrize("method", ["dis", "farneback"])
def test_flow_finds_a_shift(method: str) -> None:
    rng = np.random.default_rng(0)
    wide = torch.from_numpy(rng.random((12, 16))).view(1, 1, 12, 16)
    wide = nn.functional.interpolate(wide, scale_factor=8, mode="bicubic").clamp(0, 1).expand(1, 3, -1, -1)
    flow = optical_flow(wide[..., :60, 10:90], wide[..., 2:62, 7:87], method=method)  # type: ignore[arg-type]
    inner = flow[0, :, 12:-12, 12:-12].mean((1, 2))
    np.testing.assert_allclose(inner.numpy(), [3, -2], atol=0.35)
    assert optical_flow(wide[..., :9, :12], wide[..., :9, :12]).shape == (1, 2, 9, 12)
    with pytest.raises(UserError, match="no method"):
        optical_flow(wide, wide, method="magic")  # type: ignore[arg-type]
