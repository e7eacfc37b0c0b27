"""NNCLR against its formula, written out by loops in float64, and the search for neighbours."""

import math

import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from selftaught.errors import UserError
from tests.objectives.test_moco_v2 import dot, unit


def literal_direction(neighbours, predictions, temperature, positive_below=True):
    """-log of the share of the own prediction among all, for every neighbour; mean."""
    n, p = ([[x / math.sqrt(dot(r, r)) for x in r] for r in t.tolist()] for t in (neighbours, predictions))
    total = 0.0
    for i, row in enumerate(n):
        scores = [math.exp(dot(row, other) / temperature) for other in p]
        below = sum(s for j, s in enumerate(scores) if positive_below or j != i)
        total -= math.log(scores[i] / below)
    return total / len(n)


def four(rows=5):
    """Predictions of two views, then their neighbours; lengths differ from 1."""
    return [(s + 1) * unit(rows, seed=s) for s in range(4)]


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("below", [True, False])
def test_nnclr_equals_its_formula(temperature, below):
    p1, p2, nn1, nn2 = four()
    one = literal_direction(nn1, p2, temperature, below)
    two = literal_direction(nn2, p1, temperature, below)
    options = {"temperature": temperature, "include_positive": below}
    assert objectives.nnclr(p1, p2, nn1, nn2, **options).item() == pytest.approx((one + two) / 2, rel=1e-10)
    forward = objectives.nnclr(p1, p2, nn1, nn2, symmetric=False, **options)
    assert forward.item() == pytest.approx(one, rel=1e-10)


def test_with_the_queue_its_own_projections_it_is_infonce_of_projection_and_prediction():
    p, z = unit(6, seed=0), unit(6, seed=1)
    found, index = objectives.nearest(z, z)
    assert index.tolist() == list(range(6))
    expected = F.cross_entropy(z @ p.T / 0.1, torch.arange(6))
    assert objectives.nnclr(p, p, found, found).item() == pytest.approx(expected.item(), rel=1e-12)


def test_decoupled_form_is_dcl_across_views():
    z, p = unit(6, seed=0), unit(6, seed=1)
    ours = objectives.nnclr(p, p, z, z, symmetric=False, include_positive=False)
    dcl = objectives.dcl(z, p, temperature=0.1, symmetric=False, negatives="cross_view_only")
    assert ours.item() == pytest.approx(dcl.item(), rel=1e-12)


def test_limits():
    row = unit(1).repeat(7, 1)
    assert objectives.nnclr(row, row, row, row).item() == pytest.approx(math.log(7), abs=1e-12)
    one = unit(1)
    assert objectives.nnclr(one, one, one, one).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(UserError, match="no negatives"):
        objectives.nnclr(one, one, one, one, include_positive=False)


def test_no_gradient_reaches_the_neighbours():
    leaves = [t.requires_grad_() for t in four(4)]
    objectives.nnclr(*leaves).backward()
    assert leaves[2].grad is None
    assert leaves[3].grad is None
    nn1, nn2 = leaves[2].detach(), leaves[3].detach()
    assert torch.autograd.gradcheck(lambda a, b: objectives.nnclr(a, b, nn1, nn2, temperature=0.5), leaves[:2])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chunk", [2**22, 40, 1])
def test_nearest_is_the_best_cosine_of_all(monkeypatch, masked, chunk):
    import sys

    monkeypatch.setattr(sys.modules["selftaught.objectives.nnclr"], "CHUNK", chunk)
    z, queue = 5 * unit(9, seed=0), unit(33, seed=1)
    z.requires_grad_()
    mask = torch.rand(9, 33, generator=torch.Generator().manual_seed(0)) < 0.5 if masked else None
    found, index = objectives.nearest(z, queue, mask=mask)
    for i, row in enumerate(z.tolist()):
        allowed = [j for j in range(33) if mask is None or not mask[i, j]]
        assert index[i].item() == max(allowed, key=lambda j: dot(row, queue[j].tolist()))
    assert torch.equal(found, queue[index])
    assert not found.requires_grad


def test_nearest_of_a_row_without_candidates_is_the_first_and_of_equals_the_first():
    queue = unit(4)
    queue[2] = queue[1]
    _, index = objectives.nearest(queue[1:2], queue)
    assert index.item() == 1
    _, index = objectives.nearest(queue[1:2], queue, mask=torch.ones(1, 4, dtype=torch.bool))
    assert index.item() == 0


def test_half_precision_computes_in_float32():
    args = [t.bfloat16().requires_grad_() for t in four()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objectives.nnclr(*args)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, objectives.nnclr(*(t.float() for t in args)))
    exact = objectives.nnclr(*four())
    assert objectives.nnclr(*(t.float() for t in four())).item() == pytest.approx(exact.item(), abs=1e-5)


def test_wrong_input_is_refused_in_one_line():
    p1, p2, nn1, nn2 = four()
    with pytest.raises(UserError, match="one shape"):
        objectives.nnclr(p1, p2, nn1, nn2[:2])
    with pytest.raises(UserError, match="temperature must be above 0"):
        objectives.nnclr(p1, p2, nn1, nn2, temperature=0)
    with pytest.raises(UserError, match="isn't empty"):
        objectives.nearest(p1, p2[:0])
    with pytest.raises(UserError, match=r"mask must have the shape \(5, 5\)"):
        objectives.nearest(p1, p2, mask=torch.zeros(5, 4, dtype=torch.bool))


def test_nan_is_passed_on():
    args = four()
    args[0][1, 1] = math.nan
    assert objectives.nnclr(*args).isnan()
