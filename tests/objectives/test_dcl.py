import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selftaught import objectives
from selftaught.errors import UserError


def unit(rows, width=7, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=g, dtype=torch.float64), dim=1).to(dtype)


def pair(rows=9, width=7, dtype=torch.float64):
    """Two views that agree somewhat, as unit vectors."""
    z1 = unit(rows, width, 0)
    z2 = F.normalize(z1 + 0.5 * unit(rows, width, 1), dim=1)
    return z1.to(dtype), z2.to(dtype)


def literal_dcl(z1, z2, temperature, sigma=None, positive_below=False, cross_only=False, one_way=False):
    """The sheet's sums, entry by entry: mean over i, sum over the directions."""
    views = (z1.tolist(), z2.tolist())
    rows = len(views[0])
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    s = [dot(views[0][i], views[1][i]) for i in range(rows)]
    weights = [1.0] * rows
    if sigma is not None:
        mean = sum(math.exp(v / sigma) for v in s) / rows
        weights = [2 - math.exp(v / sigma) / mean for v in s]
    total = 0.0
    for k in (0,) if one_way else (0, 1):
        for i in range(rows):
            u = 0.0
            for v in (1 - k,) if cross_only else (0, 1):
                u += sum(math.exp(dot(views[k][i], views[v][j]) / temperature) for j in range(rows) if j != i)
            u += math.exp(s[i] / temperature) if positive_below else 0.0
            total += (-weights[i] * s[i] / temperature + math.log(u)) / rows
    return total


@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("sigma", [None, 0.5, 2.0])
@pytest.mark.parametrize("one_way", [False, True])
@pytest.mark.parametrize("cross_only", [False, True])
@pytest.mark.parametrize("positive_below", [False, True])
def test_dcl_equals_its_formula(temperature, sigma, one_way, cross_only, positive_below):
    z1, z2 = pair()
    ours = objectives.dcl(
        z1, z2, temperature=temperature, sigma=sigma, symmetric=not one_way,
        negatives="cross_view_only" if cross_only else "both_views", include_positive=positive_below,
    )  # fmt: skip
    theirs = literal_dcl(z1, z2, temperature, sigma, positive_below, cross_only, one_way)
    assert ours.item() == pytest.approx(theirs, rel=1e-10, abs=1e-10)


def test_dcl_does_not_normalise():
    z1, z2 = pair()
    assert objectives.dcl(2 * z1, z2).item() == pytest.approx(literal_dcl(2 * z1, z2, 0.1), rel=1e-10)


def test_infonce_is_dcl_with_the_positive_and_twice_simclr_on_unit_vectors():
    z1, z2 = pair()
    infonce = objectives.infonce(z1, z2, temperature=0.1)
    assert infonce.item() == pytest.approx(literal_dcl(z1, z2, 0.1, positive_below=True), rel=1e-12)
    assert infonce.item() == pytest.approx(2 * objectives.simclr(z1, z2, temperature=0.1).item(), rel=1e-12)
    per_anchor = {p: objectives.dcl_per_anchor(z1, z2, include_positive=p) for p in (True, False)}
    assert per_anchor[True].shape == (2, 9)
    torch.testing.assert_close(per_anchor[True].exp(), 1 + per_anchor[False].exp(), rtol=1e-10, atol=0)


def test_infonce_gradient_is_the_coupling_times_that_of_dcl():
    z1, z2 = pair()
    keys = torch.cat([z1, z2])
    gradients = {}
    for include in (True, False):
        query = z1.clone().requires_grad_()
        # Proposition 1: the anchor enters as a query only, all keys are constants.
        for i in range(9):
            kept = [j for j in range(18) if j not in (i, i + 9)] + ([i + 9] if include else [])
            ((query[i] @ keys[kept].T / 0.1).logsumexp(0) - query[i] @ z2[i] / 0.1).backward()
        gradients[include] = query.grad
    q = objectives.dcl_coupling(z1, z2, temperature=0.1)
    assert q.shape == (9,)
    assert ((q > 0) & (q < 1)).all()
    torch.testing.assert_close(gradients[True], q.unsqueeze(1) * gradients[False], rtol=0, atol=1e-10)


@pytest.mark.parametrize("negatives", ["both_views", "cross_view_only"])
@pytest.mark.parametrize("detach", [False, True])
def test_dclw_gradient_flows_through_the_weights_unless_detached(negatives, detach):
    a1, b1 = (t.clone().requires_grad_() for t in pair())
    a2, b2 = (t.clone().requires_grad_() for t in pair())
    objectives.dcl(a1, b1, sigma=0.5, detach_weight=detach, negatives=negatives).backward()
    s = (a2 * b2).sum(1)
    w = 2 - 9 * (s / 0.5).softmax(0)
    w = w.detach() if detach else w
    eye, loss = torch.eye(9, dtype=torch.bool), 0
    for a, b in ((a2, b2), (b2, a2)):
        blocks = [b] if negatives == "cross_view_only" else [a, b]
        logits = torch.cat([(a @ k.T / 0.1).masked_fill(eye, -math.inf) for k in blocks], 1)
        loss = loss + (logits.logsumexp(1) - w * s / 0.1).mean()
    loss.backward()
    torch.testing.assert_close(a1.grad, a2.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(b1.grad, b2.grad, rtol=0, atol=1e-12)


def test_dclw_limits_and_mean_weight():
    z1, z2 = pair()
    dcl = objectives.dcl(z1, z2).item()
    assert objectives.dclw_weights(z1, z2, sigma=0.5).mean().item() == pytest.approx(1, abs=1e-12)
    assert objectives.dcl(z1, z2, sigma=1e6).item() == pytest.approx(dcl, abs=1e-5)
    assert abs(objectives.dcl(z1, z2, sigma=0.5).item() - dcl) > 1e-3
    same = unit(9)
    assert objectives.dcl(same, same, sigma=0.5).item() == pytest.approx(objectives.dcl(same, same).item(), abs=1e-10)
    dominant = torch.cat([z1[:1], -z1[1:]])
    assert objectives.dclw_weights(z1, dominant, sigma=0.01)[0].item() == pytest.approx(2 - 9)


def test_dcl_of_two_samples_by_hand_and_its_lower_bound():
    z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    z2 = torch.tensor([[0.6, 0.8], [0.8, -0.6]], dtype=torch.float64)
    # Anchors of view 1 see similarities 0 and 0.8 twice; those of view 2 see 0 and 0.8, too. Positives: 0.6 and -0.6.
    assert objectives.dcl(z1, z2, temperature=1.0).item() == pytest.approx(2 * math.log(1 + math.exp(0.8)), abs=1e-12)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    lowest = 2 * (-2 / 0.1 + math.log(2 * (2 - 1)))
    assert objectives.dcl(opposite, opposite, temperature=0.1).item() == pytest.approx(lowest, abs=1e-9)


def test_dcl_is_invariant_under_a_rotation_and_a_common_order():
    z1, z2 = pair()
    rotation = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))).Q
    for sigma in (None, 0.5):
        reference = objectives.dcl(z1, z2, sigma=sigma).item()
        assert objectives.dcl(z1 @ rotation, z2 @ rotation, sigma=sigma).item() == pytest.approx(reference, abs=1e-10)
        assert objectives.dcl(z1.flip(0), z2.flip(0), sigma=sigma).item() == pytest.approx(reference, abs=1e-10)
        assert objectives.dcl(z2, z1, sigma=sigma).item() == pytest.approx(reference, abs=1e-10)


@pytest.mark.parametrize("name", ["simclr", "dcl", "infonce"])
def test_half_precision_inputs_and_autocast_compute_in_float32(name):
    function = getattr(objectives, name)
    z1, z2 = pair(dtype=torch.float32)
    expected = function(z1, z2)
    h1, h2 = (t.bfloat16().requires_grad_() for t in (z1, z2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, half = function(z1, z2), function(h1, h2)
    assert under.dtype == half.dtype == torch.float32
    assert torch.equal(under, expected)
    assert torch.equal(half, function(h1.float(), h2.float()))
    half.backward()
    assert h1.grad.dtype == torch.bfloat16


def test_float32_is_exact_to_1e_5():
    z1, z2 = pair(300, 16)
    for loss in (objectives.simclr, objectives.dcl):
        a, b = (t.float().requires_grad_() for t in (z1, z2))
        c, d = (t.clone().requires_grad_() for t in (z1, z2))
        single, double = loss(a, b), loss(c, d)
        single.backward()
        double.backward()
        assert single.item() == pytest.approx(double.item(), abs=1e-5)
        torch.testing.assert_close(a.grad.double(), c.grad, rtol=0, atol=1e-5 * c.grad.abs().max().item())


@pytest.mark.parametrize("name", ["dcl", "infonce"])
def test_one_sample_has_no_negatives(name):
    with pytest.raises(ValueError, match="negatives"):
        getattr(objectives, name)(*pair(1))


def test_wrong_input_is_refused_in_one_line():
    z1, z2 = pair()
    with pytest.raises(UserError, match=r"\(9, 7\) and \(8, 7\)"):
        objectives.simclr(z1, z2[:8])
    with pytest.raises(UserError, match="shape"):
        objectives.dcl(z1[0], z2[0])
    with pytest.raises(UserError, match="floating"):
        objectives.simclr(torch.ones(3, 2, dtype=torch.int64), torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(UserError, match="too small"):
        objectives.simclr(z1[:0], z2[:0])
    with pytest.raises(UserError, match="temperature must be above 0"):
        objectives.simclr(z1, z2, temperature=0)
    with pytest.raises(UserError, match="temperature must be above 0"):
        objectives.dcl(z1, z2, temperature=-1)
    with pytest.raises(UserError, match="sigma must be above 0"):
        objectives.dcl(z1, z2, sigma=0)
    with pytest.raises(UserError, match="cross_view_only"):
        objectives.dcl(z1, z2, negatives="all")


@pytest.mark.parametrize("name", ["simclr", "dcl", "infonce"])
def test_nan_is_passed_on(name):
    z1, z2 = pair()
    z1[2, 3] = math.nan
    assert getattr(objectives, name)(z1, z2).isnan()


def toy(count, seed, prototypes, rotation):
    """Ten prototypes in 8 dimensions hidden beside 24 of nuisance, all rotated; returns labels and a renderer."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=g)
    signal = prototypes[labels] + 0.35 * torch.randn(count, 8, generator=g)

    def view(rows, noise):
        kept = signal[rows] + noise * torch.randn(len(rows), 8, generator=g)
        return torch.cat([kept, 3 * torch.randn(len(rows), 24, generator=g)], 1) @ rotation

    return labels, view


def knn_accuracy(bank, bank_labels, queries, labels, k=20):
    nearest = (F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T).topk(k).indices
    votes = F.one_hot(bank_labels[nearest], 10).sum(1).argmax(1)
    return (votes == labels).float().mean().item()


@pytest.mark.slow
def test_dcl_learns_what_the_views_share():
    torch.manual_seed(0)
    prototypes = torch.randn(10, 8)
    rotation = torch.linalg.qr(torch.randn(32, 32)).Q
    labels, view = toy(4000, 1, prototypes, rotation)
    x = view(torch.arange(4000), 0.0)
    encoder = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64))
    projector = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
    optimiser = torch.optim.Adam([*encoder.parameters(), *projector.parameters()], 2e-3)
    for _ in range(300):
        rows = torch.randint(3000, (128,))
        z1, z2 = (F.normalize(projector(encoder(view(rows, 0.1))), dim=1) for _ in range(2))
        optimiser.zero_grad()
        objectives.dcl(z1, z2, temperature=0.1).backward()
        optimiser.step()
    with torch.no_grad():
        h = encoder(x)
        raw = knn_accuracy(x[:3000], labels[:3000], x[3000:], labels[3000:])
        learned = knn_accuracy(h[:3000], labels[:3000], h[3000:], labels[3000:])
        z1, z2 = (F.normalize(projector(encoder(view(torch.arange(128), 0.1))), dim=1) for _ in range(2))
        coupling = objectives.dcl_coupling(z1, z2).mean()
        small = torch.stack([objectives.dcl_coupling(z1[i : i + 8], z2[i : i + 8]).mean() for i in range(0, 128, 8)])
    assert learned >= 0.85
    assert learned >= raw + 0.40
    assert small.mean() < coupling
