"""AMCL's losses pair by pair as the sheet has them, their limits, and the failure that its limits guard against."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import multivariate_normal
from torch import nn

from selftaught import networks, objectives
from selftaught.errors import UserError
from tests.objectives.test_dcl import knn_accuracy, toy

HEADS, ROWS, WIDTH = 3, 6, 5
LIMITS = {"tau_lo": 0.08, "tau_hi": 0.7, "beta": 0.3}


def heads(rows=ROWS, count=HEADS, seed=0, noise=0.6):
    """Two views (B, C, D) that agree somewhat, of any length."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, count, WIDTH, generator=g, dtype=torch.float64)
    return [2 * base + noise * torch.randn(rows, count, WIDTH, generator=g, dtype=torch.float64) for _ in range(2)]


def score(kind="dot", seed=0):
    torch.manual_seed(seed)
    network = networks.PairScore(WIDTH, kind, hidden=7).double()
    for p in network.parameters():
        nn.init.normal_(p, std=0.8)
    return network


def unit(row):
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


@torch.no_grad()
def phi_of(network, a, b):
    """The score of one pair, by the layers' own weights."""
    if network is None:
        return dot(a, b)
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    if network.kind == "dot":
        return float(network.phi(a) @ network.phi(b))
    return float(network.last(network.first(torch.cat([a, b])).relu()))


def tau_of(network, a, b, tau_lo, tau_hi, beta):
    return tau_lo + (tau_hi - tau_lo) / (1 + math.exp(-phi_of(network, a, b)))


def omega(tau, dim=WIDTH):
    return dim / 2 * math.log(tau) + 1 / tau


def literal_contrast(anchors, positives, keys_of, network, limits, kind, include_positive):
    """Mean over anchors of one head; ``keys_of(i)`` are the anchor's negatives."""
    total = 0.0
    for i, (a, p) in enumerate(zip(anchors, positives, strict=True)):
        t = tau_of(network, a, p, **limits)
        total += -dot(a, p) / t + limits["beta"] * omega(t)
        keys = keys_of(i) + ([p] if include_positive else [])
        if kind == "max":
            keys = [max(keys, key=lambda k: dot(a, k))]
        terms = []
        for k in keys:
            t = tau_of(network, a, k, **limits)
            terms.append(dot(a, k) / t - limits["beta"] * omega(t))
        total += terms[0] if kind == "max" else math.log(sum(math.exp(x) for x in terms))
    return total / len(anchors)


def literal_amcl(z1, z2, network, limits, kind, include_positive=False):
    total, rows = 0.0, len(z1)
    for c in range(z1.shape[1]):
        z = [unit(r) for r in torch.cat([z1[:, c], z2[:, c]]).tolist()]
        partner = z[rows:] + z[:rows]

        def others(i, z=z):
            return [k for j, k in enumerate(z) if j % rows != i % rows]

        total += literal_contrast(z, partner, others, network, limits, kind, include_positive)
    return total


@pytest.mark.parametrize("kind", ["dot", "concat", None])
@pytest.mark.parametrize("negatives", ["lse", "max"])
@pytest.mark.parametrize("include_positive", [False, True])
def test_simclr_form_equals_its_formula(kind, negatives, include_positive):
    z1, z2 = heads()
    phi = kind and score(kind)
    ours = objectives.amcl(z1, z2, phi=phi, negatives=negatives, include_positive=include_positive, **LIMITS)
    assert ours.dtype == torch.float64
    theirs = literal_amcl(z1, z2, phi, LIMITS, negatives, include_positive)
    assert ours.item() == pytest.approx(theirs, rel=1e-10)


def test_the_defaults_are_narrow_limits_and_log_sum_exp():
    z1, z2 = heads()
    theirs = literal_amcl(z1, z2, None, {"tau_lo": 0.05, "tau_hi": 0.2, "beta": 0.1}, "lse")
    assert objectives.amcl(z1, z2).item() == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize("negatives", ["lse", "max"])
@pytest.mark.parametrize("include_positive", [False, True])
def test_moco_form_equals_its_formula_and_keys_are_constants(negatives, include_positive):
    (q, k), (queue, _), phi = heads(), heads(9, seed=4), score()
    q, k, queue = (t.requires_grad_() for t in (q, k, queue))
    terms = {"phi": phi, "negatives": negatives, "include_positive": include_positive, **LIMITS}
    ours = objectives.amcl_moco(q, k, queue, **terms)
    theirs = 0.0
    for c in range(HEADS):
        a, p, keys = ([unit(r) for r in t[:, c].tolist()] for t in (q, k, queue))
        theirs += literal_contrast(a, p, lambda i, keys=keys: keys, phi, LIMITS, negatives, include_positive)
    assert ours.item() == pytest.approx(theirs, rel=1e-10)
    ours.backward()
    assert k.grad is None
    assert queue.grad is None
    assert q.grad.abs().sum() > 0
    assert phi.phi.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["dot", "concat"])
def test_simsiam_form_equals_its_formula_and_projections_are_constants(kind):
    (p1, p2), (z1, z2), phi = heads(), heads(seed=4), score(kind)
    p1, p2, z1, z2 = (t.requires_grad_() for t in (p1, p2, z1, z2))
    ours = objectives.amcl_simsiam(p1, p2, z1, z2, phi=phi, **LIMITS)
    theirs = 0.0
    for c in range(HEADS):
        for p, z in ((p1, z2), (p2, z1)):
            for a, b in zip(p[:, c].tolist(), z[:, c].tolist(), strict=True):
                a, b = unit(a), unit(b)
                t = tau_of(phi, a, b, **LIMITS)
                theirs += (-dot(a, b) / (2 * t) + LIMITS["beta"] * omega(t)) / ROWS
    assert ours.item() == pytest.approx(theirs, rel=1e-10)
    ours.backward()
    assert z1.grad is None
    assert p1.grad.abs().sum() > 0


def literal_barlow(z1, z2, taus, lambda_, beta):
    total = 0.0
    for c in range(z1.shape[1]):
        a, b = ([[(x - m) / s for x, m, s in zip(row, mean, dev, strict=True)] for row in z.tolist()]
                for z in (z1[:, c], z2[:, c])
                for mean, dev in [(z.mean(0).tolist(), (z.var(0, unbiased=False) + 1e-5).sqrt().tolist())])  # fmt: skip
        for i in range(WIDTH):
            for m in range(WIDTH):
                entry = sum(x[i] * y[m] for x, y in zip(a, b, strict=True)) / len(a)
                t = taus[c][i][m]
                if i == m:
                    total += (1 - entry / t) ** 2 + beta * omega(t)
                else:
                    total += lambda_ * entry**2 / t - beta * omega(t)
    return total


def test_barlow_twins_form_equals_its_formula():
    (z1, z2), g = heads(12), torch.Generator().manual_seed(7)
    scores = torch.randn(HEADS, WIDTH, WIDTH, generator=g, dtype=torch.float64)
    ours = objectives.amcl_barlow_twins(z1, z2, scores=scores, tau_lo=0.4, tau_hi=1.7, beta=0.3, lambda_=0.05)
    taus = (0.4 + 1.3 * scores.sigmoid()).tolist()
    assert ours.item() == pytest.approx(literal_barlow(z1, z2, taus, 0.05, 0.3), rel=1e-9)
    middle = [[[1.25] * WIDTH] * WIDTH] * HEADS
    plain = objectives.amcl_barlow_twins(z1, z2)
    assert plain.item() == pytest.approx(literal_barlow(z1, z2, middle, 5e-3, 0.1), rel=1e-9)


# ---- the limits in which a host comes back -------------------------------------------------------------------
@pytest.mark.parametrize("beta", [0.0, 0.1, 2.0])
def test_one_temperature_gives_back_dcl_and_simclr(beta):
    z1, z2 = heads(8, 1)
    copies = [z.repeat(1, 3, 1) for z in (z1, z2)]
    flat = [F.normalize(z[:, 0], dim=1) for z in (z1, z2)]
    fixed = {"tau_lo": 0.3, "tau_hi": 0.3, "beta": beta, "phi": score()}
    dcl = objectives.dcl(*flat, temperature=0.3).item() / 2
    simclr = objectives.simclr(*flat, temperature=0.3).item()
    assert objectives.amcl(*copies, **fixed).item() == pytest.approx(3 * dcl, rel=1e-10)
    assert objectives.amcl(*copies, include_positive=True, **fixed).item() == pytest.approx(3 * simclr, rel=1e-10)
    # the general path, with limits that all but meet
    close = fixed | {"tau_hi": 0.3 + 1e-9}
    assert objectives.amcl(*copies, **close).item() == pytest.approx(3 * dcl, rel=1e-6)
    s = torch.cat(flat) @ torch.cat(flat).T
    own = torch.eye(8, dtype=torch.bool).repeat(2, 2)
    hardest = s.masked_fill(own, -math.inf).amax(1)
    expected = 3 * ((hardest - torch.cat([(flat[0] * flat[1]).sum(1)] * 2)) / 0.3).mean()
    assert objectives.amcl(*copies, negatives="max", **fixed).item() == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("include_positive", [False, True])
def test_one_temperature_gives_back_moco(include_positive):
    (q, k), (queue, _) = heads(), heads(9, seed=4)
    ours = objectives.amcl_moco(q, k, queue, tau_lo=0.2, tau_hi=0.2, include_positive=include_positive)
    theirs = sum(
        objectives.moco_v2(
            *(F.normalize(t[:, c], dim=1) for t in (q, k, queue)), temperature=0.2, include_positive=include_positive
        ).item()
        for c in range(HEADS)
    )
    assert ours.item() == pytest.approx(theirs, rel=1e-10)


def test_temperature_one_gives_back_simsiam_and_barlow_twins():
    (p1, p2), (z1, z2) = heads(), heads(seed=4)
    ours = objectives.amcl_simsiam(p1, p2, z1, z2, tau_lo=1.0, tau_hi=1.0, beta=0.0).item()
    theirs = sum(objectives.simsiam(p1[:, c], p2[:, c], z1[:, c], z2[:, c]).item() for c in range(HEADS))
    assert ours == pytest.approx(theirs, rel=1e-10)
    z1, z2 = heads(12)
    ours = objectives.amcl_barlow_twins(z1, z2, tau_lo=1.0, tau_hi=1.0, beta=0.2, lambda_=0.01).item()
    theirs = sum(objectives.barlow_twins(z1[:, c], z2[:, c], lambda_=0.01).item() for c in range(HEADS))
    assert ours == pytest.approx(theirs + HEADS * 0.2 * (WIDTH - WIDTH * (WIDTH - 1)), rel=1e-9)


def test_a_single_head_needs_no_axis():
    z1, z2 = heads(8, 1)
    q = heads(9, 1, seed=4)[0]
    assert objectives.amcl(z1[:, 0], z2[:, 0]) == objectives.amcl(z1, z2)
    assert objectives.amcl_moco(z1[:, 0], z2[:, 0], q[:, 0]) == objectives.amcl_moco(z1, z2, q)
    assert objectives.amcl_simsiam(*(t[:, 0] for t in (z1, z2, z2, z1))) == objectives.amcl_simsiam(z1, z2, z2, z1)
    table = torch.randn(1, WIDTH, WIDTH, dtype=torch.float64)
    flat = objectives.amcl_barlow_twins(z1[:, 0], z2[:, 0], scores=table[0])
    assert flat == objectives.amcl_barlow_twins(z1, z2, scores=table)


# ---- what the regulariser is ---------------------------------------------------------------------------------
@pytest.mark.parametrize("tau", [0.05, 0.4, 2.0])
def test_with_beta_one_it_is_the_gaussian_likelihood_of_the_positive(tau):
    a, b = F.normalize(torch.randn(2, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=1)
    nll = -multivariate_normal(a.numpy(), tau).logpdf(b.numpy())
    ours = (-(a @ b) / tau + objectives.amcl_omega(torch.tensor(tau, dtype=torch.float64), WIDTH)).item()
    assert nll - ours == pytest.approx(WIDTH / 2 * math.log(2 * math.pi), abs=1e-12)


def test_the_stationary_temperature_of_a_positive_and_that_the_negative_has_its_maximum_there():
    for beta, s in ((0.1, -0.6), (0.5, 0.2), (1.0, 0.0)):
        best = 2 * (beta - s) / (beta * WIDTH)
        tau = (torch.tensor([0.97, 1.0, 1.03], dtype=torch.float64) * best).requires_grad_()
        positive = -s / tau + beta * objectives.amcl_omega(tau, WIDTH)
        (slope,) = torch.autograd.grad(positive.sum(), tau)
        assert slope[1].item() == pytest.approx(0, abs=1e-10)
        assert slope[0] < 0 < slope[2]
        assert -positive[1] > -positive[0]  # the negative's term is minus the positive's: a maximum
        assert -positive[1] > -positive[2]


# ---- gradients and invariances -------------------------------------------------------------------------------
@pytest.mark.parametrize("negatives", ["lse", "max"])
def test_gradients_by_finite_differences_and_that_all_is_reached(negatives):
    z1, z2 = (z.requires_grad_() for z in heads(4, 2))
    phi = score()
    assert torch.autograd.gradcheck(
        lambda a, b, _: objectives.amcl(a, b, phi=phi, negatives=negatives, **LIMITS), (z1, z2, phi.phi.weight)
    )
    objectives.amcl(z1, z2, phi=phi, negatives=negatives, **LIMITS).backward()
    assert (z1.grad.abs().sum((0, 2)) > 0).all()
    assert phi.phi.weight.grad.abs().sum() > 0


def test_detached_phi_learns_but_sends_nothing_into_the_heads():
    z1, z2 = heads(4, 2)
    phi = score()
    z1.requires_grad_()
    detached = objectives.amcl(z1, z2, phi=phi, detach_phi=True, **LIMITS)
    attached = objectives.amcl(z1, z2, phi=phi, **LIMITS)
    assert detached.item() == attached.item()
    wanted = torch.autograd.grad(detached, [z1, phi.phi.weight])
    other = torch.autograd.grad(attached, [z1, phi.phi.weight])
    torch.testing.assert_close(wanted[1], other[1])
    assert (wanted[0] - other[0]).abs().max() > 1e-3
    # by hand: temperatures as constants
    a = F.normalize(torch.cat([z1, z2]), dim=2).transpose(0, 1)
    tau = 0.08 + 0.62 * phi(a.detach(), a.detach()).sigmoid().detach()
    logits = (a @ a.transpose(1, 2)) / tau - 0.3 * objectives.amcl_omega(tau, WIDTH)
    own = torch.eye(4, dtype=torch.bool).repeat(2, 2)
    i = torch.arange(8)
    by_hand = (logits.masked_fill(own, -math.inf).logsumexp(2) - logits[:, i, (i + 4) % 8]).mean(1).sum()
    torch.testing.assert_close(torch.autograd.grad(by_hand, z1)[0], wanted[0], rtol=0, atol=1e-12)


def test_only_the_hardest_pair_of_an_anchor_has_a_gradient():
    queue = torch.eye(WIDTH, dtype=torch.float64).unsqueeze(1)
    q = torch.tensor([[[0.9, 0.3, 0.1, 0.0, 0.2]]], dtype=torch.float64, requires_grad=True)
    terms = objectives.amcl_moco_terms(q, q.detach(), queue, negatives="max", tau_lo=0.5, tau_hi=0.5)
    (gradient,) = torch.autograd.grad(terms["repulsion"], q)
    a = F.normalize(q[0, 0], dim=0)
    (expected,) = torch.autograd.grad(a[0] / 0.5, q)
    torch.testing.assert_close(gradient, expected)


def test_it_ignores_order_of_heads_views_and_samples_and_length():
    z1, z2 = heads()
    phi = score()
    reference = objectives.amcl(z1, z2, phi=phi, **LIMITS).item()
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3))
    for a, b in ((z1.flip(1), z2.flip(1)), (z2, z1), (z1[order], z2[order]), (3 * z1, 0.2 * z2)):
        assert objectives.amcl(a, b, phi=phi, **LIMITS).item() == pytest.approx(reference, abs=1e-11)
    assert abs(objectives.amcl(z1, z2[order], phi=phi, **LIMITS).item() - reference) > 0.1


@pytest.mark.parametrize("kind", ["dot", "concat"])
@pytest.mark.parametrize("negatives", ["lse", "max"])
def test_tiles_change_neither_value_nor_gradient(kind, negatives, monkeypatch):
    z1, z2 = (z.requires_grad_() for z in heads(11))
    phi = score(kind)
    wanted = [*phi.parameters(), z1, z2]
    whole = objectives.amcl_terms(z1, z2, phi=phi, negatives=negatives, **LIMITS)
    expected = torch.autograd.grad(whole["loss"], wanted)
    monkeypatch.setitem(objectives.amcl.__globals__, "CHUNK", 5 * 22 * HEADS)
    tiled = objectives.amcl_terms(z1, z2, phi=phi, negatives=negatives, **LIMITS)
    for name, value in whole.items():
        assert tiled[name].item() == pytest.approx(value.item(), abs=1e-12)
    for found, value in zip(torch.autograd.grad(tiled["loss"], wanted), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=1e-12)


def test_terms_add_up_and_mean_temperatures_are_those_of_the_pairs():
    z1, z2 = heads()
    phi = score()
    terms = objectives.amcl_terms(z1, z2, phi=phi, **LIMITS)
    assert terms["loss"].item() == pytest.approx((terms["attraction"] + terms["repulsion"]).item(), abs=1e-12)
    a = F.normalize(torch.cat([z1, z2]), dim=2).transpose(0, 1)
    tau = 0.08 + 0.62 * phi(a, a).sigmoid()
    own = torch.eye(ROWS, dtype=torch.bool).repeat(2, 2)
    i = torch.arange(2 * ROWS)
    assert terms["tau_negative"].item() == pytest.approx(tau[:, ~own].mean().item(), abs=1e-12)
    assert terms["tau_positive"].item() == pytest.approx(tau[:, i, (i + ROWS) % (2 * ROWS)].mean().item(), abs=1e-12)
    assert not terms["tau_positive"].requires_grad
    assert not terms["tau_negative"].requires_grad


# ---- degenerate batches and refusals -------------------------------------------------------------------------
def test_two_samples_have_two_candidates_and_one_has_none():
    z1, z2 = heads(2, 1)
    theirs = literal_amcl(z1, z2, None, LIMITS, "max")
    assert objectives.amcl(z1, z2, negatives="max", **LIMITS).item() == pytest.approx(theirs, rel=1e-10)
    with pytest.raises(UserError, match="one sample has no negatives"):
        objectives.amcl(z1[:1], z2[:1])
    assert objectives.amcl_simsiam(z1[:1], z2[:1], z1[:1], z2[:1]).isfinite()


def test_the_released_limits_stay_finite_in_float32_and_under_autocast():
    z1, z2 = (z.float().requires_grad_() for z in heads(8))
    phi = networks.PairScore(WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for negatives in ("lse", "max"):
            loss = objectives.amcl(z1, z2, phi=phi, tau_lo=1e-5, tau_hi=2.0, negatives=negatives)
            assert loss.dtype == torch.float32
            assert loss.isfinite()
            assert torch.autograd.grad(loss, z1)[0].isfinite().all()
        halves = [z.detach().bfloat16() for z in (z1, z2)]
        under = objectives.amcl(*halves, phi=phi)
        siam = objectives.amcl_simsiam(*halves, *halves, phi=phi)
        barlow = objectives.amcl_barlow_twins(*halves)
        queue = objectives.amcl_moco(*halves, halves[0], phi=phi)
    assert under.dtype == siam.dtype == barlow.dtype == queue.dtype == torch.float32
    torch.testing.assert_close(under, objectives.amcl(*(z.float() for z in halves), phi=phi))


def test_equal_rows_zero_rows_and_nan():
    same = torch.ones(4, 2, WIDTH, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(4, 2, WIDTH, dtype=torch.float64, requires_grad=True)
    for z in (same, zero):
        loss = objectives.amcl(z, z, phi=score())
        assert loss.isfinite()
        assert torch.autograd.grad(loss, z)[0].isfinite().all()
        assert objectives.amcl_barlow_twins(z, z).isfinite()
    z1, z2 = heads()
    z1[2, 1, 3] = math.nan
    assert objectives.amcl(z1, z2).isnan()
    assert objectives.amcl(z1, z2, negatives="max").isnan()
    assert objectives.amcl_simsiam(z1, z2, z1, z2).isnan()


def test_wrong_input_is_refused_in_one_line():
    z1, z2 = heads()
    with pytest.raises(UserError, match="one shape"):
        objectives.amcl(z1, z2[:, :2])
    with pytest.raises(UserError, match="one shape"):
        objectives.amcl(z1[0, 0], z2[0, 0])
    with pytest.raises(UserError, match="tau_lo must be above 0"):
        objectives.amcl(z1, z2, tau_lo=0.0)
    with pytest.raises(UserError, match=r"tau_hi must be at least tau_lo=0.3"):
        objectives.amcl(z1, z2, tau_lo=0.3)
    with pytest.raises(UserError, match="beta must be 0 or above"):
        objectives.amcl(z1, z2, beta=-1.0)
    with pytest.raises(UserError, match="negatives must be one of lse, max"):
        objectives.amcl(z1, z2, negatives="mean")
    with pytest.raises(UserError, match="queue needs the shape"):
        objectives.amcl_moco(z1, z2, z1[:, :1])
    with pytest.raises(UserError, match="queue needs the shape"):
        objectives.amcl_moco(z1, z2, z1[:0])
    with pytest.raises(UserError, match="shape"):
        objectives.amcl_simsiam(z1, z2, z1[:2], z2[:2])
    with pytest.raises(UserError, match="scores need the shape"):
        objectives.amcl_barlow_twins(z1, z2, scores=torch.zeros(2, 2))


# ---- learning ------------------------------------------------------------------------------------------------
def train_on_toy(negatives, tau_lo, tau_hi, kind="dot", steps=300):
    """k-NN accuracy of raw data and of the features after training (sheet, 'how to see', point 5)."""
    torch.manual_seed(0)
    prototypes, rotation = torch.randn(10, 8), torch.linalg.qr(torch.randn(32, 32)).Q
    labels, view = toy(4000, 1, prototypes, rotation)
    x = view(torch.arange(4000), 0.0)
    encoder = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64))
    projectors = networks.MultiHead(3, [64, 64, 32], norm="bn", last_norm=True, last_affine=False)
    phi = networks.PairScore(32, kind)
    optimiser = torch.optim.Adam([*encoder.parameters(), *projectors.parameters(), *phi.parameters()], 2e-3)
    for _ in range(steps):
        rows = torch.randint(3000, (128,))
        z1, z2 = (projectors(encoder(view(rows, 0.1))) for _ in range(2))
        optimiser.zero_grad()
        objectives.amcl(z1, z2, phi=phi, negatives=negatives, tau_lo=tau_lo, tau_hi=tau_hi).backward()
        optimiser.step()
    with torch.no_grad():
        h = encoder(x)
    return [knn_accuracy(v[:3000], labels[:3000], v[3000:], labels[3000:]) for v in (x, h)]


@pytest.mark.slow
def test_log_sum_exp_learns_and_the_max_form_fails_with_wide_limits():
    raw, learned = train_on_toy("lse", 0.05, 0.2)
    assert learned >= 0.85
    assert learned >= raw + 0.40
    _, narrow = train_on_toy("max", 0.05, 0.2)
    _, wide = train_on_toy("max", 0.05, 2.0)
    assert narrow >= wide + 0.10
