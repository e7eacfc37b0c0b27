"""Losses of text erasing against NumPy, in the cases that decide, and as rewards of a policy that learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from selftaught import objectives as o
from selftaught.errors import UserError
from selftaught.networks import StylePolicy

RNG = np.random.default_rng(5)
X, OUT, GT, COARSE = (RNG.random((2, 3, 8, 12)) for _ in range(4))
M, REAL = ((RNG.random((2, 1, 8, 12)) > 0.4).astype(float) for _ in range(2))
Y = M * X + (1 - M) * OUT


def t(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(x))


def l1(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


def assert_near(found: Tensor, wanted: float) -> None:
    assert float(found) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_reconstruction_is_the_formula() -> None:
    hole = 1 - M
    y = o.erasing_composite(t(X), t(OUT), t(M))
    np.testing.assert_allclose(y.numpy(), Y)
    assert_near(o.erasing_hole(y, t(GT), t(M)), 10 * l1(hole * Y, hole * GT))
    assert_near(o.erasing_valid(t(OUT), t(GT), t(M), t(REAL)), 2 * l1(REAL * M * OUT, REAL * M * GT))
    o2, o1 = RNG.random((2, 3, 4, 6)), RNG.random((2, 3, 2, 3))
    wanted = 8 * l1(hole * COARSE, hole * GT)
    wanted += 6 * l1(hole[..., ::2, ::2] * o2, (hole * GT)[..., ::2, ::2])
    wanted += 5 * l1(hole[..., ::4, ::4] * o1, (hole * GT)[..., ::4, ::4])
    sides = (t(o1), t(o2), t(COARSE), t(GT), t(M))
    assert_near(o.erasing_multiscale(*sides), wanted)
    for side, weight, k in ((COARSE, 0.8, 1), (o2, 1.0, 2), (o1, 0.8, 4)):
        kept = (REAL * M)[..., ::k, ::k]
        wanted += weight * l1(kept * side, kept * GT[..., ::k, ::k])
    assert_near(o.erasing_multiscale(*sides, m_r=t(REAL)), wanted)


def test_features_are_compared_twice_and_by_gram_matrices() -> None:
    made, wanted, pasted = ([RNG.random((2, c, 3, 4)) for c in (2, 5, 3)] for _ in range(3))

    def gram(f: np.ndarray) -> np.ndarray:
        return np.stack([np.array([[(a * b).sum() for a in one] for b in one]) for one in f]) / f[0].size

    np.testing.assert_allclose(o.gram(t(made[1])).numpy(), gram(made[1]))
    perceptual = sum(l1(a, b) + l1(c, b) for a, b, c in zip(made, wanted, pasted, strict=True))
    style = sum(l1(gram(a), gram(b)) + l1(gram(c), gram(b)) for a, b, c in zip(made, wanted, pasted, strict=True))
    maps = ([t(x) for x in made], [t(x) for x in wanted], [t(x) for x in pasted])
    assert_near(o.erasing_perceptual(*maps), 0.01 * perceptual)
    assert_near(o.erasing_style(*maps), 120 * style)
    assert_near(o.erasing_perceptual(*maps[:2]), 0.02 * sum(l1(a, b) for a, b in zip(made, wanted, strict=True)))


def test_dice_and_the_mask() -> None:
    logits, target = RNG.standard_normal((2, 3, 8, 12)), 1 - M * REAL
    p = 1 / (1 + np.exp(-logits))
    dice = []
    for b in range(2):
        both = (p[b] * target[b]).sum()
        dice.append(1 - 2 * both / ((p[b] ** 2).sum() + 0.001 + 3 * (target[b] ** 2).sum() + 0.001))
    assert_near(o.erasing_mask(t(logits), t(M), t(REAL)), float(np.mean(dice)))
    exact = t(np.broadcast_to(target, p.shape).copy())
    assert 0 < o.text_dice(exact, exact, sigmoid=False).max() < 0.001
    q = o.erasing_realism(t(p), t(M), t(REAL))
    text = np.broadcast_to(1 - M, p.shape)
    for b in range(2):
        seen = p[b] * REAL[b]
        assert_near(q[b], 1 - 2 * (seen * text[b]).sum() / ((seen**2).sum() + text[b].sum() + 0.002))


def test_a_perfect_result_costs_nothing_and_an_empty_mask_neither() -> None:
    y = o.erasing_composite(t(GT), t(GT), t(M))
    maps = [t(RNG.random((2, 3, 4, 4)))]
    assert float(o.erasing_hole(y, t(GT), t(M)) + o.erasing_perceptual(maps, maps) + o.erasing_style(maps, maps)) == 0
    ones = torch.ones(2, 1, 8, 12, dtype=torch.float64)
    assert float(o.erasing_hole(t(OUT), t(GT), ones)) == 0
    assert float(o.erasing_multiscale(t(GT[..., ::4, ::4]), t(GT[..., ::2, ::2]), t(GT), t(GT), t(M))) == 0
    assert torch.isfinite(o.erasing_mask(torch.zeros(2, 1, 8, 12), ones.float(), ones.float()))
    assert float(o.triplet_erasure(t(X), t(X), t(COARSE))) == 0


def test_triplet() -> None:
    near_, far = l1(Y, X), l1(COARSE, Y)
    assert_near(o.triplet_erasure(t(Y), t(X), t(COARSE)), 0.01 * near_ / (1e-7 + near_ + 50 * max(1e-7, far**2)))
    found = [o.triplet_erasure(t(X + d), t(X), t(X + d + 0.1)) for d in (0.01, 0.1, 0.5)]
    assert 0 < found[0] < found[1] < found[2] < 0.01
    coarse = t(COARSE).requires_grad_()
    y = t(Y).requires_grad_()
    o.triplet_erasure(y, t(X), coarse).backward()
    assert coarse.grad is None
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()
    assert torch.autograd.gradcheck(lambda one: o.triplet_erasure(one, t(X), t(COARSE)), t(Y).requires_grad_())


@pytest.mark.parametrize("gan", ["hinge", "lsgan", "bce", "wgan-gp"])
def test_adversarial(gan: str) -> None:
    real, fake = RNG.standard_normal((2, 4)), RNG.standard_normal((2, 4))

    def bce(logits: np.ndarray, target: float) -> float:
        p = 1 / (1 + np.exp(-logits))
        return float(-(target * np.log(p) + (1 - target) * np.log(1 - p)).mean())

    wanted = {
        "hinge": (max(0, 1 - real.mean()) + max(0, 1 + fake.mean()), -fake.mean()),
        "lsgan": (((real - 1) ** 2).mean() + (fake**2).mean(), ((fake - 1) ** 2).mean()),
        "bce": (bce(real, 1) + bce(fake, 0), bce(fake, 1)),
        "wgan-gp": (fake.mean() - real.mean(), -fake.mean()),
    }[gan]
    found = o.erasing_discriminator(t(real), t(fake), gan=gan), o.erasing_adversarial(t(fake), gan=gan)  # type: ignore[arg-type]
    assert [float(x) for x in found] == pytest.approx([wanted[0], 0.1 * wanted[1]], rel=1e-5)


def test_hinge_is_of_the_batchs_mean() -> None:
    scores = torch.tensor([[3.0], [-1.0]])  # the mean is 1: nothing to gain, though one lies within the margin
    assert float(o.erasing_discriminator(scores, -scores)) == 0


def test_gradient_penalty_of_a_linear_critic() -> None:
    w = t(RNG.standard_normal((3, 8, 12)))
    found = o.erasing_gradient_penalty(lambda x, m: (x * w).flatten(1).sum(1), t(GT), t(Y), t(M))
    assert_near(found, 10 * (float(w.norm()) - 1) ** 2)


def test_domains_are_brought_together() -> None:
    a, b = t(RNG.random((3, 7))), t(RNG.random((3, 7)))
    (u, _, _), (v, _, _) = (np.linalg.svd(one.numpy().T, full_matrices=False) for one in (a, b))
    p, cos, q = np.linalg.svd(u.T @ v)
    wanted = np.sqrt(1 - cos**2).sum() + 0.01 * np.linalg.norm(np.abs(p) - np.abs(q.T))
    assert_near(o.erasing_subspaces(a, b), 0.01 * wanted)
    assert float(o.erasing_subspaces(a, 3 * a)) < 1e-4  # one subspace
    features = t(RNG.random((4, 5))).requires_grad_()
    loss = o.erasing_feature_norm(features, delta=2.0)
    assert_near(loss.detach(), 0.05 * 4)
    loss.backward()
    assert features.grad is not None
    assert ((features.grad * features).sum(1) < 0).all()  # against the gradient: longer


def test_subspaces_have_the_derivatives_of_the_singular_vectors() -> None:
    a, b = (torch.from_numpy(RNG.random((3, 7))).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(o.erasing_subspaces, (a, b))
    assert torch.autograd.gradgradcheck(o.erasing_subspaces, (a, b))


@pytest.mark.parametrize("case", ["rows alike", "two rows alike", "one subspace", "a row of zeros", "at right angles"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_subspaces_that_rows_do_not_determine_have_finite_derivatives(case: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.random((3, 7))).to(dtype) for _ in range(2))
    if case == "rows alike":
        a = a[:1].repeat(3, 1)
    elif case == "two rows alike":
        a[1] = a[0]
    elif case == "one subspace":
        b = a.clone()
    elif case == "a row of zeros":
        a[0] = 0
    else:
        a, b = torch.eye(7, dtype=dtype)[:3], torch.eye(7, dtype=dtype)[4:]
    both = (a.requires_grad_(), b.requires_grad_())
    slopes = torch.autograd.grad(o.erasing_subspaces(*both), both, create_graph=True)
    bends = torch.autograd.grad(sum(one.sum() + one.square().sum() for one in slopes), both)
    assert all(one.isfinite().all() for one in (*slopes, *bends))
    assert (slopes[0].abs().max() > 0) == (case != "at right angles"), "zero only where nothing is nearer"


def test_difficulty_peaks_at_twice_the_mean() -> None:
    mean = torch.tensor(0.04)
    e = torch.tensor([0.0, 0.04, 0.08, 0.1, 0.5])
    found = o.erasing_difficulty_reward(e, mean)
    wanted = [5 * (1 - abs(1 - math.exp(20 * (x - 0.08)))) for x in e.tolist()]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    assert float(found[2]) == pytest.approx(5)
    assert found.argmax() == 2
    limited = o.erasing_difficulty_reward(e, mean, limit=0.1)
    assert float(limited[-1]) == pytest.approx(5 * (2 - math.exp(2)), rel=1e-5)
    q = torch.tensor([0.2, 0.6])
    assert o.erasing_realism_reward(q, torch.tensor(0.5)).tolist() == pytest.approx([3, -1])
    assert float(o.erasing_running_mean(torch.tensor(0.5), q)) == pytest.approx(0.95 * 0.5 + 0.05 * 0.4)


def test_which_decisions_have_a_say() -> None:
    on = torch.ones(5, 18, dtype=torch.long)
    on[1, 0], on[2, 8], on[3, 9], on[4, 12] = 0, 0, 0, 0
    found = o.erasing_relevant(on)
    gone = [np.flatnonzero(~row.numpy()).tolist() for row in found]
    assert gone == [[], list(range(1, 18)), list(range(9, 18)), [10, 11], list(range(13, 18))]
    assert np.flatnonzero(~o.erasing_relevant(on, release=True)[3].numpy()).tolist() == [11]
    with pytest.raises(UserError, match="18"):
        o.erasing_relevant(on[:, :5])


def test_reinforce_is_the_formula_and_off_decisions_have_no_gradient() -> None:
    logs = t(-RNG.random((3, 4))).requires_grad_()
    entropies = t(RNG.random((3, 4))).requires_grad_()
    rewards = t(RNG.standard_normal(3)).requires_grad_()
    kept = t(RNG.random((3, 4)) > 0.4)
    loss = o.erasing_policy(logs, entropies, rewards, kept)
    k = kept.numpy()
    total = [(logs.detach().numpy()[i] * k[i]).sum() * float(rewards[i].detach()) for i in range(3)]
    assert_near(loss.detach(), -np.mean(total) - 1e-5 * np.mean((entropies.detach().numpy() * k).sum(1)))
    loss.backward()
    assert logs.grad is not None
    assert entropies.grad is not None
    assert (logs.grad[~kept] == 0).all()
    assert (entropies.grad[~kept] == 0).all()
    assert rewards.grad is None


def test_a_policy_learns_what_is_rewarded() -> None:
    torch.manual_seed(0)
    policy = StylePolicy((2, 3, 2), hidden=8, embedding=4)
    optimiser = torch.optim.Adam(policy.parameters(), lr=2e-2)
    for _ in range(60):
        drawn = policy(8)
        loss = o.erasing_policy(drawn.log_probs, drawn.entropies, (drawn.actions[:, 2] == 1).float() - 0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (policy(400).actions[:, 2] == 1).float().mean() > 0.9


def test_masks_of_bytes_and_features_that_diverged_are_refused() -> None:
    bytes_ = t(M * 255)
    for call in (
        lambda: o.erasing_composite(t(X), t(OUT), bytes_),
        lambda: o.erasing_hole(t(Y), t(GT), bytes_),
        lambda: o.erasing_valid(t(Y), t(GT), t(M), bytes_),
        lambda: o.text_dice(t(M), bytes_),
        lambda: o.erasing_mask(t(M), bytes_, t(REAL)),
        lambda: o.erasing_composite(t(X), t(OUT), t(np.where(M > 0, np.nan, M))),
    ):
        with pytest.raises(UserError, match="between 0 and 1"):
            call()
    rows = t(RNG.random((3, 8)))
    with pytest.raises(UserError, match="NaN"):
        o.erasing_subspaces(rows, rows.masked_fill(rows > 0.9, math.nan).index_fill(1, torch.tensor(0), math.nan))
