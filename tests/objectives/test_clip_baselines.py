"""CL2L, BarLIP, SiamLIP, SwALIP against their formulas, with loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from selftaught.errors import UserError

N, D = 5, 4


def some(count: int, rows: int = N, seed: int = 0) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, D, generator=g, dtype=torch.float64) for _ in range(count)]


def ce(queries: np.ndarray, keys: np.ndarray, scale: float, e: float) -> float:
    """Cross-entropy with label smoothing, row by row."""
    q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    k = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    total = 0.0
    for i in range(len(q)):
        logits = [scale * float(q[i] @ k[j]) for j in range(len(k))]
        log_z = math.log(sum(math.exp(x) for x in logits))
        for j, x in enumerate(logits):
            total -= ((1 - e) * (i == j) + e / len(k)) * (x - log_z)
    return total / len(q)


def literal_cl2l(zi, zt, his, hts, s, sh, e):
    a = len(his)
    sides = []
    for z1, z2, h1s, h2s in ((zi, zt, his, hts), (zt, zi, hts, his)):
        g = ce(z1.numpy(), z2.numpy(), s, 0.0)
        local = sum(ce(h1.numpy(), h2.numpy(), sh, e) for h1 in h1s for h2 in h2s) / a**2 if a else 0.0
        sides.append((g + a * local) / (1 + a))
    return sum(sides) / 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_cl2l_equals_its_formula(count: int) -> None:
    zi, zt, *rest = some(2 + 2 * count)
    his, hts = rest[:count], rest[count:]
    found = objectives.cl2l(zi, zt, his, hts, temperature=0.2, local_temperature=0.5, smoothing=0.1)
    assert found.item() == pytest.approx(literal_cl2l(zi, zt, his, hts, 5.0, 2.0, 0.1), rel=1e-9)
    doubled = objectives.cl2l(zi, zt, his, hts, temperature=0.2, local_temperature=0.5, combine="sum")
    assert doubled.item() == pytest.approx(2 * found.item(), rel=1e-12)


def test_cl2l_without_strong_views_or_with_the_weak_ones_is_clip() -> None:
    zi, zt = some(2)
    plain = objectives.clip(zi, zt, temperature=0.1)
    assert torch.equal(objectives.cl2l(zi, zt, temperature=0.1), plain)
    same = objectives.cl2l(zi, zt, [zi, zi], [zt, zt], temperature=0.1, local_temperature=None, smoothing=0.0)
    torch.testing.assert_close(same, plain)


def test_clip_limits_of_the_sheet() -> None:
    row = torch.randn(1, D, dtype=torch.float64).expand(N, D)
    assert objectives.clip(row, row, temperature=0.1).item() == pytest.approx(math.log(N))
    eye, s = torch.eye(N, dtype=torch.float64), 7.0
    assert objectives.clip(eye, eye, temperature=1 / s).item() == pytest.approx(math.log1p((N - 1) * math.exp(-s)))


def test_smoothing_is_torch_s_and_its_gradients_too() -> None:
    found = []
    for ours in (True, False):
        a, b = (x.clone().requires_grad_() for x in some(2, seed=3))
        t = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
        if ours:
            loss = objectives.clip(a, b, temperature=1 / t, smoothing=0.3)
        else:
            logits = t * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
            target = torch.arange(N)
            loss = sum(F.cross_entropy(m, target, label_smoothing=0.3) for m in (logits, logits.T)) / 2
        loss.backward()
        found.append((loss.detach(), a.grad, b.grad, t.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sharded_over_two_processes_is_the_whole(smoothing: float) -> None:
    image, text = (x.requires_grad_() for x in some(2, rows=16))
    whole = objectives.clip(image, text, temperature=0.2, smoothing=smoothing)
    parts = [
        objectives.clip_sharded(
            image[f : f + 8], text[f : f + 8], image, text, first=f, temperature=0.2, smoothing=smoothing
        )
        for f in (0, 8)
    ]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(whole, (image, text))
    found = torch.autograd.grad((parts[0] + parts[1]) / 2, (image, text))
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two)
    with pytest.raises(UserError, match="don't lie within 16 keys"):
        objectives.clip_sharded(image[:8], text[:8], image, text, first=9)


def test_barlip_equals_its_formula_and_is_zero_at_the_identity() -> None:
    gi, gt, *rest = some(6, seed=5)
    images, texts = rest[:2], rest[2:]

    def b(v1, v2):
        c = v1.numpy().T @ v2.numpy() / N
        return 0.025 * sum((c[i, j] - 1) ** 2 if i == j else 5e-3 * c[i, j] ** 2 for i in range(D) for j in range(D))

    expected = (b(gi, gt) + sum(b(i, t) for i in images for t in texts)) / 5
    assert objectives.barlip(gi, gt, images, texts).item() == pytest.approx(expected, rel=1e-9)
    assert objectives.barlip(gi, gt).item() == pytest.approx(b(gi, gt), rel=1e-9)
    q, _ = torch.linalg.qr(torch.randn(8, D, dtype=torch.float64))
    assert objectives.barlip_pair(q * 8**0.5, q * 8**0.5).item() < 1e-25
    wide = torch.randn(3, 64, dtype=torch.float64)
    c = wide.T @ wide / 3
    square = 0.025 * ((c.diag() - 1).square().sum() + 5e-3 * (c.square().sum() - c.diag().square().sum()))
    torch.testing.assert_close(objectives.barlip_pair(wide, wide), square)
    with pytest.raises(UserError, match="batch of 1 is too small"):
        objectives.barlip_pair(gi[:1], gt[:1])


def test_siamlip_equals_its_formula_and_stops_the_gradient() -> None:
    pi, pt, vi, vt, *rest = some(12, seed=6)
    pis, pts, vis, vts = (rest[2 * k : 2 * k + 2] for k in range(4))

    def d(p, v):
        p, v = p.numpy(), v.numpy()
        cosines = [p[i] @ v[i] / np.linalg.norm(p[i]) / np.linalg.norm(v[i]) for i in range(N)]
        return 2 - 2 * sum(cosines) / N

    expected = d(pi, vt) + d(pt, vi) + sum(d(pis[a], vts[b]) + d(pts[a], vis[b]) for a in range(2) for b in range(2))
    found = objectives.siamlip(pi, pt, vi, vt, p_images=pis, p_texts=pts, v_images=vis, v_texts=vts)
    assert found.item() == pytest.approx(expected / 10, rel=1e-9)
    assert objectives.siamlip_distance(pi, pi).item() == pytest.approx(0, abs=1e-12)
    assert objectives.siamlip_distance(pi, -pi).item() == pytest.approx(4)
    p, v = pi.clone().requires_grad_(), vt.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objectives.siamlip_distance(p, v) + 0 * v.sum(), v)
    assert not gradient.any()


def literal_sinkhorn(scores: np.ndarray, eps: float, rounds: int) -> np.ndarray:
    q = np.exp(scores / eps).T
    q /= q.sum()
    k, b = q.shape
    for _ in range(rounds):
        q /= q.sum(1, keepdims=True)
        q /= k
        q /= q.sum(0, keepdims=True)
        q /= b
    return (q * b).T


def test_swalip_equals_its_formula() -> None:
    his, hts = some(2, seed=7), some(2, seed=8)
    unit = lambda x: x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)  # noqa: E731
    total = 0.0
    for l1 in range(2):
        for l2 in range(2):
            for one, two in ((his, hts), (hts, his)):
                q = literal_sinkhorn(unit(one[1 - l1]) @ unit(two[1 - l2]).T, 0.05, 3)
                s = unit(one[l1]) @ unit(two[l2]).T / 0.2
                log_p = s - np.log(np.exp(s).sum(1, keepdims=True))
                total += -0.5 * (q * log_p).sum(1).mean()
    assert objectives.swalip(his, hts, temperature=0.2).item() == pytest.approx(total / 4, rel=1e-9)
    flat = objectives.sinkhorn(torch.ones(6, 3, dtype=torch.float64))
    torch.testing.assert_close(flat, torch.full((6, 3), 1 / 3, dtype=torch.float64))
    with pytest.raises(UserError, match="SwALIP swaps two views"):
        objectives.swalip(his[:1], hts[:1])


def test_swalip_v1_equals_its_formula() -> None:
    pi, pt = (F.normalize(x, dim=1) for x in some(2, seed=9))
    total = 0.0
    for own, other in ((pi, pt), (pt, pi)):
        q = literal_sinkhorn(other.numpy(), 0.05, 3)
        s = own.numpy() / 0.1
        total += -(q * (s - np.log(np.exp(s).sum(1, keepdims=True)))).sum(1).mean()
    assert objectives.swalip_v1(pi, pt).item() == pytest.approx(total / 2, rel=1e-9)


def test_gradients_reach_every_view() -> None:
    views = [x.requires_grad_() for x in some(6, seed=11)]
    zi, zt, *rest = views
    losses = {
        "cl2l": objectives.cl2l(zi, zt, rest[:2], rest[2:]),
        "barlip": objectives.barlip(zi, zt, rest[:2], rest[2:]),
    }
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, views)
        assert all(g.abs().sum() > 0 for g in gradients), name
    assert torch.autograd.gradcheck(lambda a, b: objectives.clip(a, b, temperature=0.5, smoothing=0.1), views[:2])
    assert torch.autograd.gradcheck(objectives.barlip_pair, views[:2])
    gradients = torch.autograd.grad(objectives.swalip(rest[:2], rest[2:]), rest)
    assert all(g.abs().sum() > 0 for g in gradients)
    for wrong in ({"combine": "max"}, {"smoothing": 1.0}):
        with pytest.raises(UserError):
            objectives.cl2l(zi, zt, **wrong)
    with pytest.raises(UserError, match="as many strong texts"):
        objectives.cl2l(zi, zt, rest[:2], rest[2:3])
