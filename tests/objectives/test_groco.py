"""GroCo's loss, anchor by anchor as the sheet has it, and its baselines."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.objectives import groco as module_function
from tests.objectives.test_dcl import knn_accuracy, toy
from tests.objectives.test_sorting import alpha, brick_layers, literal_sort


def views(count=2, rows=9, width=6, seed=0, noise=0.7):
    """Views that agree somewhat, of any length."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, width, generator=g, dtype=torch.float64)
    return [2 * base + noise * torch.randn(rows, width, generator=g, dtype=torch.float64) for _ in range(count)]


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b)))


def literal_groco(zs, first, k, kind="cauchy", steepness=1.0, layers=None, pre_order=True):
    """The sheet's steps for every anchor of every view; both halves of the cross-entropy."""
    zs = [z.tolist() for z in zs]
    total = 0.0
    for a, view in enumerate(zs):
        losses = []
        for i, anchor in enumerate(view):
            positives = [cosine(anchor, zs[p][i]) for p in range(first) if p != a]
            others = [(cosine(anchor, view[j]), j) for j in range(len(view)) if j != i]
            hardest = sorted(others, reverse=True)[:k]
            negatives = [s for s, _ in sorted(hardest, key=(lambda x: x[0]) if pre_order else (lambda x: x[1]))]
            scores = negatives + (sorted(positives) if pre_order else positives)
            n = len(scores)
            _, p = literal_sort(scores, (layers or brick_layers)(n), kind, steepness)
            for group, member in ((range(k, n), lambda e: e >= k), (range(k), lambda e: e < k)):
                for entry in range(n):
                    r = min(max(sum(p[entry][j] for j in group), 0.0), 1.0)
                    losses.append(-math.log(r) if member(entry) else -math.log(1 - r))
        total += sum(losses) / len(losses)  # the mean of the two means: both have B n entries
    return total / len(zs)


@pytest.mark.parametrize(("count", "first"), [(2, 2), (3, 3), (4, 4), (3, 2), (5, 2), (5, 3)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_it_equals_its_formula(count, first, k):
    zs = views(count)
    ours = objectives.groco(*zs, n_pos_augs=first, topk_neg=k)
    assert ours.dtype == torch.float64
    assert ours.item() == pytest.approx(literal_groco(zs, first, k), rel=1e-10)


@pytest.mark.parametrize("relaxation", ["cauchy", "logistic", "reciprocal", "optimal"])
@pytest.mark.parametrize("steepness", [0.5, 1.0, 6.0])
def test_it_equals_its_formula_for_every_relaxation(relaxation, steepness):
    zs = views(3)
    ours = objectives.groco(*zs, topk_neg=4, relaxation=relaxation, steepness=steepness)
    assert ours.item() == pytest.approx(literal_groco(zs, 3, 4, relaxation, steepness), rel=1e-9)


def test_it_equals_its_formula_with_the_bitonic_network_and_without_pre_ordering():
    zs = views(4)
    bitonic = objectives.groco(*zs, topk_neg=5, network="bitonic")
    theirs = literal_groco(zs, 4, 5, layers=lambda n: objectives.sorting_network(n, "bitonic"))
    assert bitonic.item() == pytest.approx(theirs, rel=1e-10)
    loose = objectives.groco(*zs, topk_neg=5, pre_order=False)
    assert loose.item() == pytest.approx(literal_groco(zs, 4, 5, pre_order=False), rel=1e-10)
    assert abs(loose.item() - objectives.groco(*zs, topk_neg=5).item()) > 1e-4


def test_ten_negatives_and_all_views_are_the_default():
    zs = views(3, rows=14)
    assert objectives.groco(*zs).item() == pytest.approx(literal_groco(zs, 3, 10), rel=1e-10)


def test_one_positive_and_one_negative_by_hand():
    z1, z2 = views(rows=2)
    found = objectives.groco(z1, z2, topk_neg=1, steepness=3.0).item()
    total = 0.0
    for a, b in ((z1, z2), (z2, z1)):
        for i in (0, 1):
            gap = cosine(a[i].tolist(), b[i].tolist()) - cosine(a[i].tolist(), a[1 - i].tolist())
            total -= math.log(0.5 + math.atan(3.0 * gap) / math.pi)
    assert found == pytest.approx(total / 4, rel=1e-12)


def test_the_best_and_the_worst_order():
    eye = torch.eye(12, dtype=torch.float64)
    best = objectives.groco(eye, eye, steepness=1e7).item()
    assert best == pytest.approx(0, abs=1e-5)
    flat = objectives.groco(eye, eye, steepness=0.0).item()
    uniform = objectives.group_probability(torch.zeros(11, dtype=torch.float64), 10)
    target = (torch.arange(11) >= 10).double()
    assert flat == pytest.approx(F.binary_cross_entropy(uniform, target).item(), rel=1e-12)
    worst = objectives.groco(torch.cat([eye, -eye]), torch.cat([-eye, eye]), steepness=1e7, topk_neg=10)
    assert worst > 1
    assert worst.isfinite()


def test_only_the_anchor_of_a_pair_gets_a_gradient():
    z1, z2 = (z.requires_grad_() for z in views())
    (both,) = torch.autograd.grad(objectives.groco(z1, z2, topk_neg=3), z1)
    # by hand: z1 as anchors only, everything that it is compared with held fixed
    a, c = F.normalize(z1, dim=1), F.normalize(z1.detach(), dim=1)
    positive = (a * F.normalize(z2.detach(), dim=1)).sum(1, keepdim=True)
    own = (a @ c.T).masked_fill(torch.eye(9, dtype=torch.bool), -math.inf).topk(3).values.flip(1)
    r = objectives.group_probability(torch.cat([own, positive], 1), 3)
    loss = F.binary_cross_entropy(r, torch.tensor([0.0, 0, 0, 1]).double().expand(9, 4)) / 2
    (alone,) = torch.autograd.grad(loss, z1)
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-12)
    (free,) = torch.autograd.grad(objectives.groco(z1, z2, topk_neg=3, stop_grad=False), z1)
    assert (free - both).abs().max() > 1e-3
    assert torch.autograd.gradcheck(lambda x, y: objectives.groco(x, y, topk_neg=3, stop_grad=False), (z1, z2))


def test_positives_are_pulled_and_the_hardest_negative_is_pushed():
    scores = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    scores[:, :4] = scores[:, :4].sort(1).values
    scores[:, 4:] = scores[:, 4:].sort(1).values
    scores.requires_grad_()
    target = torch.tensor([0.0, 0, 0, 0, 1, 1]).double().expand(40, 6)

    def loss(x):
        return F.binary_cross_entropy(objectives.group_probability(x, 4), target, reduction="none").sum(1)

    (gradient,) = torch.autograd.grad(loss(scores).sum(), scores)
    assert (gradient[:, 4:] <= 1e-12).all()
    assert (gradient[:, 3] >= -1e-12).all()
    shift = torch.tensor([0.0, 0, 0, 0, 1, 1]).double()
    rising = torch.stack([loss(scores.detach() + t * shift) for t in torch.linspace(0, 1, 11)])
    assert (rising.diff(dim=0) < 0).all()


def test_it_ignores_length_rotation_order_of_views_and_of_images():
    zs = views(3)
    reference = objectives.groco(*zs, topk_neg=4).item()
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))).Q
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    assert objectives.groco(3 * zs[0], 0.1 * zs[1], zs[2], topk_neg=4).item() == pytest.approx(reference, abs=1e-12)
    assert objectives.groco(*(z @ rotation for z in zs), topk_neg=4).item() == pytest.approx(reference, abs=1e-12)
    assert objectives.groco(zs[2], zs[0], zs[1], topk_neg=4).item() == pytest.approx(reference, abs=1e-12)
    assert objectives.groco(*(z[order] for z in zs), topk_neg=4).item() == pytest.approx(reference, abs=1e-12)
    assert abs(objectives.groco(zs[0], zs[1][order], zs[2], topk_neg=4).item() - reference) > 0.01


def test_tiles_of_anchors_change_nothing(monkeypatch):
    zs = [z.requires_grad_() for z in views(2, rows=23)]
    whole = objectives.groco(*zs, stop_grad=False)
    expected = torch.autograd.grad(whole, zs)
    monkeypatch.setitem(module_function.__wrapped__.__globals__, "TILE", 4)
    tiled = objectives.groco(*zs, stop_grad=False)
    assert tiled.item() == pytest.approx(whole.item(), abs=1e-13)
    for found, wanted in zip(torch.autograd.grad(tiled, zs), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


def test_autocast_and_half_precision_compute_in_float32():
    zs = [z.float() for z in views(2, rows=14)]
    expected = objectives.groco(*zs)
    halves = [z.bfloat16().requires_grad_() for z in zs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, half = objectives.groco(*zs), objectives.groco(*halves)
    assert under.dtype == half.dtype == torch.float32
    assert torch.equal(under, expected)
    half.backward()
    assert halves[0].grad.dtype == torch.bfloat16
    assert halves[0].grad.isfinite().all()


def test_equal_projections_nan_and_zero_rows():
    same = torch.ones(12, 4, dtype=torch.float64).requires_grad_()
    loss = objectives.groco(same, same)
    loss.backward()
    assert loss.isfinite()
    assert same.grad.isfinite().all()
    zero = torch.zeros(12, 4, dtype=torch.float64).requires_grad_()
    objectives.groco(zero, zero).backward()
    assert zero.grad.isfinite().all()
    z1, z2 = views(rows=12)
    z1[2, 3] = math.nan
    assert objectives.groco(z1, z2).isnan()
    assert objectives.nt_xent_pairs(z1, z2).isnan()


def test_wrong_input_is_refused_in_one_line():
    z1, z2 = views()
    with pytest.raises(UserError, match=r"batch of 9 is too small.* 11 for 10 negatives.*topk_neg"):
        objectives.groco(z1, z2)
    with pytest.raises(UserError, match="topk_neg must be 1 or more"):
        objectives.groco(z1, z2, topk_neg=0)
    with pytest.raises(UserError, match="n_pos_augs=1 of 2 views"):
        objectives.groco(z1, z2, topk_neg=3, n_pos_augs=1)
    with pytest.raises(UserError, match="n_pos_augs=3 of 2 views"):
        objectives.groco(z1, z2, topk_neg=3, n_pos_augs=3)
    with pytest.raises(UserError, match="one shape"):
        objectives.groco(z1, z2[:8], topk_neg=3)
    with pytest.raises(UserError, match="relaxation must be one of"):
        objectives.groco(z1, z2, topk_neg=3, relaxation="normal")
    with pytest.raises(UserError, match="temperature must be above 0"):
        objectives.nt_xent_pairs(z1, z2, temperature=0)
    with pytest.raises(UserError, match="too small"):
        objectives.nt_xent_pairs(z1, z2, topk_neg=17)
    assert objectives.nt_xent_pairs(z1, z2, topk_neg=16) > 0


def literal_nt_xent(zs, temperature, first, k=None):
    """Each pair of a positive view and a later one; negatives: all views of the other samples."""
    zs = [z.tolist() for z in zs]
    losses = []
    for p in range(first):
        for v in range(p + 1, len(zs)):
            for a, b in ((p, v), (v, p)):
                for i, anchor in enumerate(zs[a]):
                    others = [cosine(anchor, z[j]) for z in zs for j in range(len(z)) if j != i]
                    below = [math.exp(s / temperature) for s in sorted(others, reverse=True)[:k]]
                    above = math.exp(cosine(anchor, zs[b][i]) / temperature)
                    losses.append(-math.log(above / (above + sum(below))))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("count", "first"), [(2, 2), (4, 4), (4, 2)])
@pytest.mark.parametrize("k", [None, 3, 12])
def test_nt_xent_of_all_pairs_equals_its_formula(count, first, k):
    zs = views(count)
    ours = objectives.nt_xent_pairs(*zs, temperature=0.3, n_pos_augs=first, topk_neg=k)
    assert ours.item() == pytest.approx(literal_nt_xent(zs, 0.3, first, k), rel=1e-10)


def test_nt_xent_of_two_views_is_simclr_and_stop_grad_halves_no_value():
    z1, z2 = (z.requires_grad_() for z in views())
    plain = objectives.nt_xent_pairs(z1, z2, temperature=0.2)
    simclr = objectives.simclr(z1, z2, temperature=0.2)
    stopped = objectives.nt_xent_pairs(z1, z2, temperature=0.2, stop_grad=True)
    assert plain.item() == pytest.approx(simclr.item(), rel=1e-12)
    assert stopped.item() == pytest.approx(simclr.item(), rel=1e-12)
    gradients = [torch.autograd.grad(loss, z1)[0] for loss in (plain, simclr, stopped)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)
    anchors, keys = torch.cat([z1, z2]), torch.cat([z1, z2]).detach()
    logits = F.normalize(anchors, dim=1) @ F.normalize(keys, dim=1).T / 0.2
    logits = logits.masked_fill(torch.eye(18, dtype=torch.bool), -math.inf)
    (held,) = torch.autograd.grad(F.cross_entropy(logits, (torch.arange(18) + 9) % 18), z1)
    torch.testing.assert_close(gradients[2], held, rtol=0, atol=1e-12)


def train_on_toy(count, loss, steps=300):
    """k-NN accuracy of raw data and of the features after training (sheet, 'how to see', point 4)."""
    torch.manual_seed(0)
    prototypes, rotation = torch.randn(10, 8), torch.linalg.qr(torch.randn(32, 32)).Q
    labels, view = toy(4000, 1, prototypes, rotation)
    x = view(torch.arange(4000), 0.0)
    encoder = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64))
    projector = nn.Sequential(
        nn.Linear(64, 64, bias=False),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 32),
        nn.BatchNorm1d(32, affine=False),
    )
    optimiser = torch.optim.Adam([*encoder.parameters(), *projector.parameters()], 2e-3)
    for _ in range(steps):
        rows = torch.randint(3000, (128,))
        zs = [projector(encoder(view(rows, 0.1))) for _ in range(count)]
        optimiser.zero_grad()
        loss(*zs).backward()
        optimiser.step()
    with torch.no_grad():
        h = encoder(x)
    return [knn_accuracy(v[:3000], labels[:3000], v[3000:], labels[3000:]) for v in (x, h)]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_sorting_learns_what_the_views_share(count):
    raw, learned = train_on_toy(count, objectives.groco)
    assert learned >= 0.85
    assert learned >= raw + 0.40


def test_alpha_of_the_helper_is_half_at_zero():
    assert [alpha(kind, 0.0) for kind in ("cauchy", "logistic", "reciprocal", "optimal")] == [0.5] * 4
