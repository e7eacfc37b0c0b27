"""NP-Edit's equations, literally and by their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught import objectives as o
from selftaught.errors import UserError

G = torch.Generator().manual_seed(0)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=G, dtype=torch.float64)


def test_an_oracle_is_unrolled_to_its_picture_whatever_the_noise() -> None:
    """The sheet's check 1."""
    wanted, noise = draw(6, 3, 4, 4), draw(6, 3, 4, 4)
    t = torch.tensor([0.25, 0.5, 0.75, 0.1, 0.9, 1.0], dtype=torch.float64)

    def oracle(x_t: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return (x_t - wanted) / at.view(-1, 1, 1, 1)

    clean, first = o.unroll_flow(oracle, noise, t)
    torch.testing.assert_close(clean, wanted)
    torch.testing.assert_close(first, wanted)
    torch.testing.assert_close(o.sample_flow(oracle, noise), wanted)
    torch.testing.assert_close(o.sample_flow(oracle, noise, fresh=True), wanted)
    clean, first = o.unroll_flow(lambda x, at: torch.zeros_like(x), noise, t)
    torch.testing.assert_close(first, noise)
    torch.testing.assert_close(clean, noise)


def test_two_steps_by_hand_and_which_of_them_learns() -> None:
    noise, t = draw(4, 5), torch.tensor([0.25, 0.5, 0.75, 0.5], dtype=torch.float64)
    weight = draw(5, 5).requires_grad_()

    def model(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ weight) + at[:, None]

    found = {}
    for through in (False, True):
        clean, first = o.unroll_flow(model, noise, t, backprop_first_step=through)
        w, e, s = weight.detach().numpy(), noise.numpy(), t.numpy()[:, None]
        one = e - (np.tanh(e @ w) + 1)
        x_t = (1 - s) * one + s * e
        np.testing.assert_allclose(clean.detach().numpy(), x_t - s * (np.tanh(x_t @ w) + s), rtol=1e-12)
        np.testing.assert_allclose(first.detach().numpy(), one, rtol=1e-12)
        (found[through],) = torch.autograd.grad(clean.sum(), weight)
    assert (found[True] - found[False]).abs().max() > 0.01


def test_four_steps_by_hand() -> None:
    noise = draw(2, 3)
    x, clean = noise, noise
    for number, t in enumerate((1.0, 0.75, 0.5, 0.25)):
        x = (1 - t) * clean + t * noise if number else noise
        clean = x - t * (0.3 * x + t)
    torch.testing.assert_close(o.sample_flow(lambda x, t: 0.3 * x + t[:, None], noise), clean)
    with pytest.raises(UserError, match="fall from 1"):
        o.sample_flow(lambda x, t: x, noise, (0.5, 1.0))


def test_the_judge_s_loss_and_its_gradient() -> None:
    """The sheet's check 3."""
    yes, no = draw(4, 3).requires_grad_(), draw(4, 3)
    loss = o.judge_loss(yes, no)
    d = (yes.detach() - no).numpy()
    assert loss.item() == pytest.approx(np.log1p(np.exp(-d)).mean(), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, yes)
    np.testing.assert_allclose(gradient.numpy(), -1 / (1 + np.exp(d)) / d.size, rtol=1e-12)
    assert o.judge_loss(yes + 7, no + 7).item() == pytest.approx(loss.item(), rel=1e-9)
    against = o.judge_loss(yes, no, torch.zeros(4, 3, dtype=torch.bool))
    assert against.item() == pytest.approx(np.log1p(np.exp(d)).mean(), rel=1e-12)
    assert torch.isfinite(o.judge_loss(yes - 1e4, no))
    logits = torch.cat([yes[..., None], no[..., None]], 2)
    both = o.judge_vocabulary_loss(logits, torch.zeros(4, 3, dtype=torch.int64))
    torch.testing.assert_close(both, loss)  # a vocabulary of the two words is the binary case
    more = o.judge_vocabulary_loss(torch.cat([logits, draw(4, 3, 5)], 2), torch.zeros(4, 3, dtype=torch.int64))
    assert more > both


@pytest.mark.parametrize("normalise", [True, False])
def test_matching_has_just_the_gradient_of_the_paper(normalise: bool) -> None:
    clean, real, fake, e = (draw(5, 2, 3) for _ in range(4))
    t = torch.rand(5, generator=G, dtype=torch.float64) * 0.96 + 0.02
    x_t = o.noised(clean, e, t)
    clean.requires_grad_()
    loss = o.match_distributions(clean, x_t, real, fake, t, normalise=normalise)
    (gradient,) = torch.autograd.grad(loss, clean)
    at, x = t.numpy()[:, None, None], clean.detach().numpy()
    n = 1 / np.abs(x - (x_t.numpy() - at * real.numpy())).mean((1, 2), keepdims=True) if normalise else 1.0
    wanted = n * at * (real - fake).numpy()
    np.testing.assert_allclose(gradient.numpy(), wanted / x.size, rtol=1e-5)
    assert loss.item() == pytest.approx(0.5 * (wanted**2).mean(), rel=1e-5)
    assert o.match_distributions(clean, x_t, real, real, t).item() == 0
    once = clean - (x_t - clean.detach())  # the teacher is right already: the normaliser is 0
    assert torch.isfinite(o.match_distributions(once, once.detach(), 0 * real, 0 * fake, t))


def test_matching_moves_a_gaussian_to_the_teacher_s() -> None:
    """The sheet's check 2: both velocities exact, x_0 free."""
    generator = torch.Generator().manual_seed(0)
    s, real_mean = 0.5, torch.tensor([2.0, -1.0])
    x = (s * torch.randn(512, 2, generator=generator)).requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.02)

    def exact(x_t: torch.Tensor, t: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        a, at = 1 - t[:, None], t[:, None]
        clean = mean + a * s**2 / (a**2 * s**2 + at**2) * (x_t - a * mean)
        return (x_t - clean) / at

    for step in range(500):
        t = torch.rand(512, generator=generator) * 0.96 + 0.02
        x_t = o.noised(x.detach(), torch.randn(512, 2, generator=generator), t)
        fake_mean = x.detach().mean(0)
        real, fake = exact(x_t, t, real_mean), exact(x_t, t, fake_mean)
        loss = o.match_distributions(x, x_t, real, fake, t)
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            unit = torch.nn.functional.normalize(x.grad, dim=1)
            aim = torch.nn.functional.normalize(fake_mean - real_mean, dim=0)
            torch.testing.assert_close(unit, aim.expand_as(unit), atol=1e-3, rtol=0)
        optimiser.step()
    assert (x.detach().mean(0) - real_mean).abs().max() < 0.1 * s


def test_guidance_flow_and_total() -> None:
    a, b, c = draw(3, 4), draw(3, 4), draw(3, 4)
    torch.testing.assert_close(o.guided_velocity(a, b, 1.0), a)
    torch.testing.assert_close(o.guided_velocity(a, b, 3.0), 3 * a - 2 * b)
    clean = b.clone().requires_grad_()
    assert o.flow_matching(a, clean, c).item() == pytest.approx(((a - (c - b)) ** 2).mean().item())
    assert not o.flow_matching(a, clean, c).requires_grad
    one, two = torch.tensor(3.0), torch.tensor(5.0)
    assert o.np_edit_terms(one, two)["loss"].item() == pytest.approx(0.01 * 3 + 0.5 * 5)
    assert set(o.np_edit_terms(None, two)) == {"matching", "loss"}
    with pytest.raises(UserError, match="keep one"):
        o.np_edit_terms(None, None)


def test_the_policy_gradient_by_hand() -> None:
    rewards, mean, x = draw(3, 4), draw(12, 5).requires_grad_(), draw(12, 5)
    log = o.gaussian_log_density(x, mean, 0.5)
    by_hand = -0.5 * ((x - mean.detach()) / 0.5).pow(2) - math.log(0.5 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(log.detach(), by_hand.mean(1))
    advantage = o.group_advantage(rewards).numpy()
    r = rewards.numpy()
    np.testing.assert_allclose(advantage, (r - r.mean(1, keepdims=True)) / r.std(1, keepdims=True), rtol=1e-4)
    (gradient,) = torch.autograd.grad(o.policy_gradient(log.view(3, 4), rewards), mean)
    wanted = -advantage.reshape(12, 1) * (x - mean.detach()).numpy() / 0.25 / 5 / 12
    np.testing.assert_allclose(gradient.numpy(), wanted, rtol=1e-4)
    assert o.group_advantage(torch.ones(2, 3)).abs().max() == 0
