"""DADeblur's equations, once more in NumPy with loops, and what only the right ones have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_exposures_are_means_of_frames_on_end() -> None:
    frames = drawn(2, 1, 9, 3, 2).abs().clamp(0, 1)
    for exposure, step, gamma in ((3, 3, 1.0), (3, 2, 2.2), (1, 4, 1.0)):
        found = objectives.averaged_exposure(frames, exposure, step, gamma=gamma).numpy()
        starts = list(range(0, 9 - exposure + 1, step))
        for k, s in enumerate(starts):
            light = frames[:, :, s : s + exposure].numpy() ** gamma
            np.testing.assert_allclose(found[:, :, k], light.mean(2) ** (1 / gamma), atol=1e-12)
        assert found.shape[2] == len(starts)
    with pytest.raises(UserError, match="exposure=10"):
        objectives.averaged_exposure(frames, 10, 1)


def test_the_flow_of_an_exposure_and_its_share() -> None:
    ahead, back = drawn(2, 4, 2, 3, 3), drawn(2, 4, 2, 3, 3, seed=1)
    found = objectives.exposure_flow(ahead, back).numpy()
    wanted = np.zeros((2, 2, 3, 3))
    for k in range(4):
        wanted += (ahead[:, k].numpy() - back[:, k].numpy()) / 2
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    shares = objectives.magnitude_share(torch.from_numpy(found), longest=205.0).numpy()
    np.testing.assert_allclose(shares[:, 0], np.hypot(wanted[:, 0], wanted[:, 1]) / 205, atol=1e-12)
    even = torch.ones(1, 10, 2, 2, 2) * torch.tensor([3.0, 4.0]).view(2, 1, 1)
    np.testing.assert_allclose(objectives.magnitude_share(objectives.exposure_flow(even, -even), longest=50.0), 1.0)


def test_directions_have_length_one_and_turn_round_with_time() -> None:
    ahead, back = drawn(2, 2, 4, 5), drawn(2, 2, 4, 5, seed=1)
    found = objectives.blur_orientation(ahead, back)
    f = (ahead.numpy() - back.numpy()) / 2
    np.testing.assert_allclose(found.numpy(), f / np.sqrt((f**2).sum(1, keepdims=True)), atol=1e-12)
    np.testing.assert_allclose(found.norm(dim=1).numpy(), 1, atol=1e-12)
    np.testing.assert_allclose(objectives.blur_orientation(back, ahead), -found)
    still = objectives.blur_orientation(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3))
    assert still[:, 0].eq(1).all()
    assert still[:, 1].eq(0).all()


def test_the_strength_of_the_new_blur() -> None:
    m = drawn(7, 3, 4).abs()
    found = objectives.domain_magnitude(m, offset=10.0).numpy()
    own = m.numpy()
    for t in range(7):
        wanted = own[t] + 10
        if 2 <= t <= 4:
            around = (own[t - 2] + own[t - 1] + own[t + 1] + own[t + 2]) / 4
            wanted = own[t] / own[t].max() * around + 10
        np.testing.assert_allclose(found[t], wanted, atol=1e-12)
    even = torch.full((6, 2, 2), 3.0)
    assert torch.equal(objectives.domain_magnitude(even), even + 10)
    np.testing.assert_allclose(objectives.domain_magnitude(m, offset=1.0, mode="own"), own + 1)
    around = objectives.domain_magnitude(m, offset=0.0, mode="neighbours")[3].numpy()
    np.testing.assert_allclose(around, (own[1] + own[2] + own[4] + own[5]) / 4, atol=1e-12)
    still = torch.cat((torch.ones(2, 2, 2), torch.zeros(1, 2, 2), torch.ones(2, 2, 2)))
    assert torch.equal(objectives.domain_magnitude(still, offset=0.0)[2], torch.ones(2, 2))
    with pytest.raises(UserError, match="mode"):
        objectives.domain_magnitude(m, mode="theirs")


def test_conditions_are_directions_and_shares() -> None:
    direction, strength = drawn(2, 2, 3, 3), torch.tensor([20.5, 410.0]).view(2, 1, 1).expand(2, 3, 3).double()
    found = objectives.blur_condition(direction, strength)
    assert torch.equal(found[:, :2], direction)
    np.testing.assert_allclose(found[0, 2], 0.1)
    np.testing.assert_allclose(found[1, 2], 1.0)
    with pytest.raises(UserError, match="blur_condition"):
        objectives.blur_condition(direction, strength[:1])


def test_the_losses_are_their_formulas() -> None:
    p, m = drawn(2, 1, 3, 3), drawn(2, 1, 3, 3, seed=1).abs()
    assert objectives.blur_magnitude(p, m).item() == pytest.approx(np.abs(p.numpy() - m.numpy()).mean())
    d = np.log(np.maximum(p.numpy(), 0) + 1e-3) - np.log(m.numpy() + 1e-3)
    more = np.mean([(one**2).mean() - one.mean() ** 2 / 2 for one in d.reshape(2, -1)])
    both = objectives.blur_magnitude(p, m, scale_invariant=0.7).item()
    assert both == pytest.approx(np.abs(p.numpy() - m.numpy()).mean() + 0.7 * more)
    x, y = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    assert objectives.blur_noise(x, y).item() == pytest.approx(np.sqrt((x - y).numpy() ** 2 + 1e-6).mean())
    assert objectives.blur_noise(x, x).item() == pytest.approx(1e-3)
    assert objectives.dadeblur(x, y).item() == pytest.approx(((x.clamp(-0.5, 0.5) - y).numpy() ** 2).mean())


def test_what_is_clipped_gets_no_gradient() -> None:
    x = torch.tensor([[[[-0.8, -0.2, 0.3, 0.9]]]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(objectives.dadeblur(x, torch.zeros_like(x)), x)
    np.testing.assert_allclose(slope.numpy().ravel(), [0, -0.1, 0.15, 0], atol=1e-12)
    (slope,) = torch.autograd.grad(objectives.dadeblur(x, torch.zeros_like(x), bound=None), x)
    assert slope.ne(0).all()


def test_what_has_no_number_is_refused_or_stays_unknown() -> None:
    empty = torch.zeros(0, 2, 4, 4)
    for name, given in {
        "blur_orientation": (empty, empty),
        "exposure_flow": (empty[:, None], empty[:, None]),
        "blur_magnitude": (empty[:, :1], empty[:, :1]),
        "blur_noise": (empty, empty),
        "dadeblur": (empty, empty),
    }.items():
        with pytest.raises(UserError, match="not empty"):
            getattr(objectives, name)(*given)
    last = torch.zeros(1, 4, 4, 2)  # components at the end
    with pytest.raises(UserError, match=r"\(N, 2, H, W\)"):
        objectives.blur_orientation(last, last)
    flow = torch.ones(1, 2, 2, 2)
    flow[0, 0, 0, 0] = torch.nan  # unknown, and not without a direction
    found = objectives.blur_orientation(flow, -flow)
    assert found[0, :, 0, 0].isnan().all()
    torch.testing.assert_close(found[0, :, 1, 1], torch.full((2,), 0.5**0.5))


def test_frames_that_were_not_shifted_are_warned_of() -> None:
    sharp = torch.full((1, 3, 4, 4), 0.9)
    with pytest.warns(UserWarning, match="shift both"):
        objectives.dadeblur(sharp, sharp)
    assert objectives.dadeblur(sharp, sharp, bound=None) == 0
    assert objectives.dadeblur(sharp - 0.5, sharp - 0.5) == 0
