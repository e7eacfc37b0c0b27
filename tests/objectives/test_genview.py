"""GenView's weights, masks and noise: literal transcriptions, limits, invariances, the toy checks of the sheet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError

N, P, C = 6, 9, 5


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal_quality(t1: np.ndarray, t2: np.ndarray, v: np.ndarray) -> np.ndarray:
    found = []
    for a, b in zip(t1, t2, strict=True):
        parts = []
        for t in (a, b):
            m = [float(token @ v) for token in t]
            f = [(x - min(m)) / (max(m) - min(m) + 1e-7) for x in m]
            g = [1 - x for x in f]
            parts.append([sum(w / (sum(ws) + 1e-7) * token for w, token in zip(ws, t, strict=True)) for ws in (f, g)])
        cos = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(*parts, strict=True)]
        found.append(cos[0] - cos[1])
    return np.array(found)


def test_quality_and_weights_are_the_formulas() -> None:
    t1, t2, v = rand(N, P, C), rand(N, P, C, seed=1), rand(C, seed=2)
    q = objectives.genview_quality(t1, t2, v)
    np.testing.assert_allclose(q, literal_quality(t1.numpy(), t2.numpy(), v.numpy()), atol=1e-9)
    w = objectives.genview_weights(q, gamma=1.5)
    e = np.exp(1.5 * q.numpy())
    np.testing.assert_allclose(w, N * e / e.sum(), rtol=1e-9)
    assert float(w.sum()) == pytest.approx(N)
    torch.testing.assert_close(objectives.genview_weights(q + 3, gamma=1.5), w)
    torch.testing.assert_close(objectives.genview_weights(q, gamma=0.0), torch.ones_like(q))
    assert objectives.genview_weights(q[:1]).tolist() == [1.0]
    same = objectives.genview_weights(objectives.genview_quality(t1, t1, v))
    torch.testing.assert_close(same, torch.ones_like(same))
    torch.testing.assert_close(objectives.genview_quality(t1, t2, -v), -q)
    parts = [objectives.genview_quality(t1, t2, v, parts=name) for name in ("foreground", "background")]
    torch.testing.assert_close(sum(parts), q)
    learnt = t1.clone().requires_grad_()
    assert not objectives.genview_quality(learnt, t2, v).requires_grad


def test_maps_sum_to_one_and_know_no_scale() -> None:
    t, v = rand(N, P, C), rand(C, seed=2)
    f, g = objectives.foreground_maps(t, v)
    for weights in (f, g):
        assert bool((weights >= 0).all())
        torch.testing.assert_close(weights.sum(1), torch.ones(N, dtype=torch.float64), atol=1e-5, rtol=0)
    shifted = 3 * t + 2 * v / v.square().sum()
    torch.testing.assert_close(objectives.foreground_maps(shifted, v)[0], f, atol=1e-5, rtol=1e-5)
    swapped = objectives.foreground_maps(t, -v)
    torch.testing.assert_close(swapped[0], g, atol=1e-5, rtol=1e-5)
    flat = torch.ones(2, P, C)
    assert float(objectives.foreground_maps(flat, torch.ones(C))[0].sum()) == 0
    assert float(objectives.genview_quality(flat, flat, torch.ones(C))[0]) == pytest.approx(-1)  # no foreground: 0 - 1


def test_shared_foregrounds_weigh_more_than_shared_backgrounds() -> None:
    v = torch.zeros(16, dtype=torch.float64)
    v[0] = 1
    front = torch.arange(P) < 4
    shared, own1, own2 = rand(N, P, 16), rand(N, P, 16, seed=1), rand(N, P, 16, seed=2)

    def pair(fore_alike: bool) -> torch.Tensor:
        views = []
        for own in (own1, own2):
            t = torch.where(front[:, None] if fore_alike else ~front[:, None], shared, own)
            t[..., 0] = torch.where(front, 1.0, -1.0)
            views.append(t)
        return objectives.genview_quality(*views, v)

    assert bool((pair(True) > pair(False)).all())
    assert float(pair(True).mean()) > 0.2 > -0.2 > float(pair(False).mean())


def test_the_losses_are_the_base_methods_where_weights_are_one() -> None:
    q1, q2, k1, k2 = (rand(N, C, seed=s) for s in range(4))
    one = torch.ones(N, dtype=torch.float64)
    moco = objectives.moco_v3(q1, q2, k1, k2, temperature=0.3)
    torch.testing.assert_close(objectives.genview_moco_v3(q1, q2, k1, k2, one, temperature=0.3), moco)
    torch.testing.assert_close(objectives.genview_simsiam(q1, q2, k1, k2, one), objectives.simsiam(q1, q2, k1, k2))
    w = objectives.genview_weights(rand(N, seed=9))
    unit = [x / x.norm(dim=1, keepdim=True) for x in (q1, q2, k1, k2)]
    total = 0.0
    for q, k in ((unit[0], unit[3]), (unit[1], unit[2])):
        logits = (q @ k.T / 0.3).numpy()
        rows = -np.diag(logits) + np.log(np.exp(logits).sum(1))
        total += float((w.numpy() * 2 * 0.3 * rows).mean())
    assert float(objectives.genview_moco_v3(q1, q2, k1, k2, w, temperature=0.3)) == pytest.approx(total)
    weights = w.clone().requires_grad_()
    losses = rand(N).requires_grad_()
    objectives.genview(losses, weights).backward()
    assert weights.grad is None
    torch.testing.assert_close(losses.grad, w / N)


def test_the_losses_of_moco_v2_simclr_and_swav_with_weights() -> None:
    a, b, queue = (torch.nn.functional.normalize(rand(n, C, seed=s), dim=1) for s, n in enumerate((N, N, 7)))
    one, w = torch.ones(N, dtype=torch.float64), objectives.genview_weights(rand(N, seed=9))
    mask = rand(N, 7, seed=5) > 0.8
    given = {"temperature": 0.3}
    torch.testing.assert_close(
        objectives.genview_moco_v2(a, b, queue, one, mask=mask, **given),
        objectives.moco_v2(a, b, queue, mask=mask, **given),
    )
    torch.testing.assert_close(objectives.genview_simclr(3 * a, b, one, **given), objectives.simclr(a, b, **given))
    scores, codes = [rand(N, 4, seed=s) for s in range(4)], rand(2, N, 4, seed=8).softmax(2)
    torch.testing.assert_close(
        objectives.genview_swav(*scores, codes=codes, weights=one, **given),
        objectives.swapped_prediction(*scores, codes=codes, **given),
    )
    moco = simclr = swav = 0.0
    z = torch.cat([a, b])
    for i in range(N):
        weight = float(w[i]) / N
        own = math.exp(float(a[i] @ b[i]) / 0.3)
        moco -= weight * math.log(own / (own + sum(math.exp(float(a[i] @ k) / 0.3) for k in queue)))
        for row in (i, N + i):
            others = sum(math.exp(float(z[row] @ z[j]) / 0.3) for j in range(2 * N) if j != row)
            simclr -= weight / 2 * math.log(own / others)
        for crop in (0, 1):
            for v in range(4):
                if v != crop:
                    part = -float(codes[crop, i] @ (scores[v][i] / 0.3).log_softmax(0)) / (2 * 3)
                    swav += part * (weight if v < 2 else 1 / N)
    assert float(objectives.genview_moco_v2(a, b, queue, w, **given)) == pytest.approx(moco)
    assert float(objectives.genview_simclr(a, b, w, **given)) == pytest.approx(simclr)
    assert float(objectives.genview_swav(*scores, codes=codes, weights=w, **given)) == pytest.approx(swav)


def test_levels_and_noise() -> None:
    p = torch.tensor([0, 0.2, 0.2001, 0.5, 0.8, 0.81, 1.0], dtype=torch.float64)
    assert objectives.noise_level(p).tolist() == [0, 0, 100, 200, 300, 400, 400]
    assert objectives.noise_level(p, bins=(0.5,), step=7).tolist() == [0, 0, 0, 0, 7, 7, 7]
    with pytest.raises(UserError, match="in \\[0, 1\\]"):
        objectives.noise_level(p + 0.1)
    bar = objectives.cosine_alphas()
    assert 0.9999 < float(bar[0]) < 1
    exact = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    np.testing.assert_allclose(bar[:900], np.array(exact[1:901]) / exact[0], rtol=1e-9)
    c, noise = rand(4000, 3), rand(4000, 3, seed=1)
    for level in (0, 100, 400):
        found = objectives.perturb_embedding(c, torch.full((4000,), level), noise=noise)
        torch.testing.assert_close(found, bar[level].sqrt() * c + (1 - bar[level]).sqrt() * noise)
        assert float(found.var()) == pytest.approx(1, abs=0.05)
    mean, std = torch.tensor([1.0, 2, 3]).double(), torch.tensor([0.5, 2, 1]).double()
    level = torch.full((4000,), 100)
    moved = objectives.perturb_embedding(c * std + mean, level, mean=mean, std=std, noise=noise)
    torch.testing.assert_close(moved, objectives.perturb_embedding(c, level, noise=noise) * std + mean)


def test_the_direction_points_to_the_centre_and_the_threshold_leaves_its_share() -> None:
    g = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(8, generator=g), dim=0)
    y, x = np.mgrid[:6, :6]
    centre = torch.from_numpy(((abs(y - 2.5) < 1.5) & (abs(x - 2.5) < 1.5)).reshape(-1).astype(np.float32))
    tokens = 0.2 * torch.randn(40, 36, 8, generator=g) + (2 * centre - 1)[:, None] * axis
    v = objectives.foreground_direction(tokens, (6, 6))
    assert float(v @ axis) > 0.95
    torch.testing.assert_close(objectives.foreground_direction(-tokens, (6, 6)), -v, atol=1e-4, rtol=1e-4)
    for fraction in (0.4, 0.35):
        alpha = objectives.foreground_threshold(tokens, v, fraction=fraction)
        assert float((tokens @ v > alpha).float().mean()) == pytest.approx(fraction, abs=0.01)
    ratio = objectives.foreground_ratio(tokens, v, 0.0)
    torch.testing.assert_close(ratio, torch.full((40,), 4 / 36), atol=0.03, rtol=0)
