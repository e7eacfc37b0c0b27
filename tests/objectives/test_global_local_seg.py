"""Contrast of slice positions and regions: the equations written out, limits, gradients, the tables."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from selftaught import objectives
from selftaught.errors import UserError

G = torch.Generator().manual_seed(0)


def rows(count: int, width: int = 5) -> Tensor:
    return torch.randn(count, width, generator=G, dtype=torch.float64)


def s(a: Tensor, b: Tensor, tau: float) -> float:
    return math.exp(float(cosine_similarity(a, b, dim=0)) / tau)


def term(a: Tensor, b: Tensor, negatives: list[Tensor], tau: float) -> float:
    return -math.log(s(a, b, tau) / (s(a, b, tau) + sum(s(a, n, tau) for n in negatives)))


def both(a: Tensor, b: Tensor, negatives: list[Tensor], tau: float) -> float:
    return term(a, b, negatives, tau) + term(b, a, negatives, tau)


@pytest.mark.parametrize(("parts", "tau"), [(4, 0.1), (3, 0.5), (2, 1.0)])
def test_the_global_losses_are_the_sheets_sums(parts: int, tau: float) -> None:
    count = 3 * parts
    z = rows(3 * count)
    total = 0.0
    for i in range(count):
        others = [z[j] for j in range(3 * count) if j % parts != i % parts]
        x, first, second = z[i], z[count + i], z[2 * count + i]
        total += both(x, first, others, tau) + both(x, second, others, tau) + both(first, second, others, tau)
    found = objectives.global_domain_minus(z, parts=parts, temperature=tau)
    assert float(found) == pytest.approx(total / (3 * count), rel=1e-10)

    z = rows(4 * count)
    bs, total = len(z), 0.0
    for i in range(bs):
        if i % (2 * parts) >= parts:
            continue
        i1, i2, i3, i4 = (z[(i + k * parts) % bs] for k in range(4))
        others = [z[j] for j in range(bs) if j % parts != i % parts]
        total += both(i1, i2, others, tau) + both(i1, i3, others, tau)
        total += both(i3, i4, others, tau) + both(i2, i4, others, tau)
    assert float(objectives.global_domain(z, parts=parts, temperature=tau)) == pytest.approx(total / bs, rel=1e-10)

    z = rows(8)
    total = sum(term(z[i], z[i ^ 1], [z[j] for j in range(8) if j not in (i, i ^ 1)], tau) for i in range(8))
    assert float(objectives.global_random(z, temperature=tau)) == pytest.approx(total / 8, rel=1e-10)


def test_limits_and_invariances_of_the_global_losses() -> None:
    z = rows(24)
    assert float(objectives.global_domain_minus(z, parts=1)) == 0
    assert float(objectives.global_domain(z, parts=1)) == 0
    alike = torch.ones(24, 5, dtype=torch.float64)
    assert float(objectives.global_domain_minus(alike)) == pytest.approx(2 * math.log(1 + 24 * 0.75))
    assert float(objectives.global_domain(alike)) == pytest.approx(4 * math.log(1 + 24 * 0.75))
    blocks = z.view(3, 2, 4, 5)
    for order in (blocks[:, [1, 0]], blocks[:, :, [2, 0, 3, 1]], blocks * rows(3 * 2 * 4, 1).abs().view(3, 2, 4, 1)):
        moved = objectives.global_domain_minus(order.reshape(24, 5))
        assert float(moved) == pytest.approx(float(objectives.global_domain_minus(z)), rel=1e-10)
    turned = z.view(3, 8, 5).roll(1, 0).reshape(24, 5)  # a ring of volumes has no beginning
    assert float(objectives.global_domain(turned)) == pytest.approx(float(objectives.global_domain(z)), rel=1e-10)
    z.requires_grad_()
    for loss in (objectives.global_domain(z), objectives.global_domain_minus(z), objectives.global_random(z)):
        (slope,) = torch.autograd.grad(loss, z)
        assert slope.abs().max() > 1e-4
        assert (slope * z).sum(1).abs().max() < 1e-12
    (slope,) = torch.autograd.grad(objectives.global_domain(z, parts=1), z)
    assert not slope.any()


def test_gradients_of_first_and_second_order() -> None:
    z, f = rows(16, 3).requires_grad_(), torch.randn(4, 2, 8, 8, generator=G, dtype=torch.float64, requires_grad=True)
    weight = rows(3, 18).requires_grad_()
    for loss in (objectives.global_domain, lambda x: objectives.global_domain_minus(x[:12], temperature=0.5)):
        assert torch.autograd.gradcheck(loss, (z,))
        assert torch.autograd.gradgradcheck(loss, (z,))
    small = torch.randn(2, 1, 3, 3, generator=G, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: objectives.local_random(x, regions=9, size=1), (small,))
    assert torch.autograd.gradcheck(lambda w: objectives.local_domain(f, parts=2, weight=w), (weight,))
    logits = torch.randn(1, 3, 2, 2, generator=G, dtype=torch.float64, requires_grad=True)
    classes = torch.tensor([[[0, 1], [2, 1]]])
    assert torch.autograd.gradcheck(lambda x: objectives.soft_dice(x, classes), (logits,))


def test_the_regions_are_the_table() -> None:
    corners = objectives.region_corners(48)  # m = 44, h = 22, q = 11, t = 33
    listed = [
        (0, 0), (0, 22), (0, 44), (22, 0), (22, 22), (22, 44), (44, 0), (44, 22), (44, 44), (11, 11), (11, 33),
        (33, 11), (33, 33),
    ]  # fmt: skip
    assert [tuple(c) for c in corners.tolist()] == listed
    near = objectives.region_negatives(48).tolist()
    assert near[0] == [[0, 22], [11, 11], [11, 22], [22, 0], [22, 11]]
    assert near[7] == [[22, 22], [44, 0], [44, 44], [33, 11], [33, 33]]
    assert near[12] == [[22, 22], [22, 44], [44, 22], [44, 44], [33, 11]]
    assert objectives.region_corners(9, 9, 1).tolist()[-1] == [8, 8]
    for side, regions, size in ((12, 13, 3), (12, 9, 3), (9, 13, 1), (5, 9, 1)):
        own = objectives.region_corners(side, regions, size)
        around = objectives.region_negatives(side, regions, size, 5)
        assert around.shape == (regions, 5, 2)
        assert not (around == own[:, None]).all(2).any(), "a region is its own negative"
    with pytest.raises(UserError, match="too small"):
        objectives.region_corners(7)
    with pytest.raises(UserError, match="9 or 13"):
        objectives.region_corners(12, 10)


def region(f: Tensor, corner: Tensor, weight: Tensor | None) -> Tensor:
    y, x = corner.tolist()
    flat = f[:, y : y + 3, x : x + 3].permute(1, 2, 0).reshape(-1)
    return flat if weight is None else weight @ flat


@pytest.mark.parametrize("mapped", [True, False])
def test_the_local_losses_are_the_sheets_sums(mapped: bool) -> None:
    weight = rows(4, 27) if mapped else None
    own, near = objectives.region_corners(9), objectives.region_negatives(9)
    f, tau, total = torch.randn(4, 3, 9, 9, generator=G, dtype=torch.float64), 0.1, 0.0
    for k in (0, 2):
        for r in range(13):
            a, b = (region(f[k + j], own[r], weight) for j in (0, 1))
            total += both(a, b, [region(f[k + j], n, weight) for j in (0, 1) for n in near[r]], tau)
    found = objectives.local_random(f, weight=weight)
    assert float(found) == pytest.approx(total / 13 / 4, rel=1e-10)

    f, parts, total = torch.randn(12, 3, 9, 9, generator=G, dtype=torch.float64), 2, 0.0
    for i in range(6):
        for p in (6 + i, (i + 2) % 6, (i + 4) % 6):
            for r in range(13):
                a, b = region(f[i], own[r], weight), region(f[p], own[r], weight)
                total += term(a, b, [region(f[j], n, weight) for j in (i, p) for n in near[r][:4]], tau)
    found = objectives.local_domain(f, parts=parts, weight=weight)
    assert float(found) == pytest.approx(total / 13 / 12, rel=1e-10)


def test_limits_of_the_local_losses() -> None:
    f = torch.ones(24, 2, 48, 48, dtype=torch.float64)
    assert float(objectives.local_random(f)) == pytest.approx(math.log(11))
    assert float(objectives.local_domain(f)) == pytest.approx(1.5 * math.log(9))
    g = torch.randn(2, 2, 48, 48, generator=G, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(objectives.local_random(g), g)
    named = torch.zeros(48, 48, dtype=torch.bool)
    corners = [objectives.region_corners(48), objectives.region_negatives(48).flatten(0, 1)]
    for y, x in torch.cat(corners).tolist():
        named[y : y + 3, x : x + 3] = True
    assert (slope[:, :, named] != 0).any()
    assert not slope[:, :, ~named].any()


def test_soft_dice_is_its_formula() -> None:
    logits, classes = torch.randn(2, 3, 4, 5, generator=G, dtype=torch.float64), torch.randint(0, 2, (2, 4, 5))
    total = 0.0
    for n in range(2):
        for k in range(3):
            p, y = logits[n].softmax(0)[k], (classes[n] == k).double()
            total += float(2 * (p * y).sum() / (p.sum() + y.sum() + 1e-10))
    assert float(objectives.soft_dice(logits, classes)) == pytest.approx(1 - total / 6)
    shares = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).double()
    torch.testing.assert_close(objectives.soft_dice(logits, shares), objectives.soft_dice(logits, classes))
    sure = torch.log(shares + 1e-12)
    assert float(objectives.soft_dice(sure, classes)) == pytest.approx(1 / 3, abs=1e-6)  # class 2 is absent: d = 0
    with pytest.raises(UserError, match="classes must lie"):
        objectives.soft_dice(logits, classes + 2)
