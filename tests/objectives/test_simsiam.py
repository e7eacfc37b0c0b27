import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selftaught.errors import UserError
from selftaught.objectives import byol, simsiam, spread


def four(rows=6, width=5):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(rows, width, generator=g, dtype=torch.float64) * (k + 1) + 0.3 for k in range(4)]


def literal_cosine(a, b):
    """Mean cosine of the rows, by loops."""
    total = 0.0
    for u, v in zip(a.tolist(), b.tolist(), strict=True):
        length = math.sqrt(sum(x * x for x in u)) * math.sqrt(sum(x * x for x in v))
        total += sum(x * y for x, y in zip(u, v, strict=True)) / length / len(a)
    return total


def literal_cross_entropy(p, z):
    total = 0.0
    for u, v in zip(p.tolist(), z.tolist(), strict=True):
        below_u, below_v = sum(map(math.exp, u)), sum(map(math.exp, v))
        total -= sum(math.exp(y) / below_v * (x - math.log(below_u)) for x, y in zip(u, v, strict=True)) / len(p)
    return total


def test_simsiam_is_half_of_each_negative_cosine():
    p1, p2, z1, z2 = four()
    expected = -literal_cosine(p1, z2) / 2 - literal_cosine(p2, z1) / 2
    assert simsiam(p1, p2, z1, z2).item() == pytest.approx(expected, rel=1e-12)
    assert simsiam(p1, p2, z1, z2, stop_gradient=False).item() == pytest.approx(expected, rel=1e-12)
    assert simsiam(p1, p2, z1, z2, symmetric=False).item() == pytest.approx(-literal_cosine(p1, z2), rel=1e-12)


def test_simsiam_by_cross_entropy_compares_softmaxes():
    p1, p2, z1, z2 = four()
    expected = literal_cross_entropy(p1, z2) / 2 + literal_cross_entropy(p2, z1) / 2
    assert simsiam(p1, p2, z1, z2, similarity="cross-entropy").item() == pytest.approx(expected, rel=1e-12)
    entropy = -(z1.softmax(1) * z1.log_softmax(1)).sum(1).mean().item()
    assert simsiam(z1, z1, z1, z1, similarity="cross-entropy").item() == pytest.approx(entropy, rel=1e-12)


def test_values_of_right_opposite_and_crossed_predictions():
    _, _, z1, z2 = four()
    assert byol(3 * z2, z1, z1, z2).item() == pytest.approx(0, abs=1e-12)
    assert byol(-z2, -5 * z1, z1, z2).item() == pytest.approx(8, abs=1e-12)
    assert simsiam(z2, 2 * z1, z1, z2).item() == pytest.approx(-1, abs=1e-12)
    assert simsiam(-z2, -z1, z1, z2).item() == pytest.approx(1, abs=1e-12)
    assert byol(z1, z2, z1, z2).item() > 0.1  # each view's own target is no use


@pytest.mark.parametrize("loss", [byol, simsiam], ids=["byol", "simsiam"])
def test_no_gradient_reaches_the_targets_and_predictions_only_turn(loss):
    p1, p2, z1, z2 = (t.requires_grad_() for t in four())
    loss(p1, p2, z1, z2).backward()
    assert z1.grad is None
    assert z2.grad is None
    for p in (p1, p2):
        assert p.grad.abs().max() > 1e-3
        assert (p.grad * p).sum(1).abs().max() < 1e-12  # the length of a prediction doesn't matter


@pytest.mark.parametrize("similarity", ["cosine", "cross-entropy"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_simsiam_gradients_by_finite_differences(similarity, symmetric):
    views = [t.requires_grad_() for t in four(3, 4)]
    free = lambda *v: simsiam(*v, stop_gradient=False, similarity=similarity, symmetric=symmetric)  # noqa: E731
    assert torch.autograd.gradcheck(free, views)
    free(*views).backward()
    assert views[3].grad.abs().max() > 1e-3  # without the stop, the target follows
    held = [t.detach() for t in views[2:]]
    fixed = lambda p1, p2: simsiam(p1, p2, *held, similarity=similarity, symmetric=symmetric)  # noqa: E731
    assert torch.autograd.gradcheck(fixed, views[:2])


@pytest.mark.parametrize("loss", [byol, simsiam], ids=["byol", "simsiam"])
def test_invariances(loss):
    views = four()
    reference = loss(*views).item()
    p1, p2, z1, z2 = views
    assert loss(p2, p1, z2, z1).item() == pytest.approx(reference, rel=1e-12)
    assert loss(*(t.flip(0) for t in views)).item() == pytest.approx(reference, rel=1e-12)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))).Q
    assert loss(*(t @ rotation for t in views)).item() == pytest.approx(reference, rel=1e-10)
    lengths = torch.linspace(0.1, 9, 6, dtype=torch.float64).unsqueeze(1)
    assert loss(*(t * lengths for t in views)).item() == pytest.approx(reference, rel=1e-12)
    assert abs(loss(p1.flip(0), p2, z1, z2).item() - reference) > 1e-3


@pytest.mark.parametrize("loss", [byol, simsiam], ids=["byol", "simsiam"])
def test_one_sample_and_a_zero_prediction_are_finite(loss):
    assert loss(*four(1)).isfinite()
    views = four()
    views[0][2] = 0
    views[0].requires_grad_()
    value = loss(*views)
    value.backward()
    assert value.isfinite()
    assert views[0].grad.isfinite().all()


@pytest.mark.parametrize("similarity", ["cosine", "cross-entropy"])
def test_float32_under_autocast(similarity):
    views = four(20, 12)
    expected = {"byol": byol(*views).item(), "simsiam": simsiam(*views, similarity=similarity).item()}
    for name, loss in (("byol", byol), ("simsiam", lambda *v: simsiam(*v, similarity=similarity))):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under, half = loss(*(t.float() for t in views)), loss(*(t.bfloat16() for t in views))
        assert under.dtype == half.dtype == torch.float32
        assert under.item() == pytest.approx(expected[name], abs=1e-5)
        assert half.item() == pytest.approx(expected[name], rel=0.01, abs=0.01)


def test_spread_is_zero_after_collapse_and_one_on_the_sphere():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 16, generator=g, dtype=torch.float64, requires_grad=True)
    assert spread(z).item() == pytest.approx(1, abs=0.01)
    assert spread(7 * z).item() == pytest.approx(spread(z).item(), rel=1e-12)
    assert spread(torch.ones(8, 16) * torch.rand(8, 1, generator=g)).item() == pytest.approx(0, abs=1e-6)
    deviations = F.normalize(z).detach().numpy().std(0)
    assert spread(z).item() == pytest.approx(4 * deviations.mean(), rel=1e-10)
    assert not spread(z).requires_grad


def test_wrong_input_is_refused():
    p1, p2, z1, z2 = four()
    for loss in (byol, simsiam):
        with pytest.raises(UserError, match="one shape"):
            loss(p1, p2, z1, z2[:, :3])
        with pytest.raises(UserError, match="too small"):
            loss(p1[:0], p2[:0], z1[:0], z2[:0])
    with pytest.raises(UserError, match="similarity"):
        simsiam(p1, p2, z1, z2, similarity="dot")
    with pytest.raises(UserError, match="shape"):
        spread(z1[0])
    z1[0, 0] = math.nan
    assert byol(p1, p2, z1, z2).isnan()
    assert simsiam(p1, p2, z1, z2).isnan()


@pytest.mark.slow
def test_only_the_stop_gradient_keeps_simsiam_from_collapse():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 8, generator=g) @ torch.randn(8, 48, generator=g)
    found = {}
    for stop in (True, False):
        torch.manual_seed(1)
        # No BatchNorm at the end: it would hide the collapse for long.
        network = nn.Sequential(nn.Linear(48, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
        predictor = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32))
        optimiser = torch.optim.SGD([*network.parameters(), *predictor.parameters()], 0.05, momentum=0.9)
        for _ in range(150):
            rows = torch.randint(1024, (128,))
            z1, z2 = (network(x[rows] + 0.5 * torch.randn(128, 48)) for _ in range(2))
            optimiser.zero_grad()
            simsiam(predictor(z1), predictor(z2), z1, z2, stop_gradient=stop).backward()
            optimiser.step()
        found[stop] = spread(network(x)).item()
    assert found[True] > 0.75
    assert found[False] < 0.5 * found[True]
