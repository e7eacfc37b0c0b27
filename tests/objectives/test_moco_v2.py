"""MoCo v2 and v3 against their formulas, written out by loops in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from selftaught.errors import UserError


def unit(rows, width=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=g, dtype=torch.float64), dim=1)


def triple(rows=6, entries=11, width=7):
    """Queries, keys that agree somewhat, and a queue."""
    q = unit(rows, width, 0)
    return q, F.normalize(q + 0.6 * unit(rows, width, 1), dim=1), unit(entries, width, 2)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def literal_moco(q, k, queue, temperature, positive_below=True, mask=None):
    total = 0.0
    for i, (query, key) in enumerate(zip(q.tolist(), k.tolist(), strict=True)):
        kept = [n for j, n in enumerate(queue.tolist()) if mask is None or not mask[i, j]]
        above = math.exp(dot(query, key) / temperature)
        below = sum(math.exp(dot(query, n) / temperature) for n in kept) + (above if positive_below else 0.0)
        total -= math.log(above / below)
    return total / len(q)


def random_mask(rows=6, entries=11, seed=3):
    return torch.rand(rows, entries, generator=torch.Generator().manual_seed(seed)) < 0.4


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("positive_below", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_moco_v2_equals_its_formula(temperature, positive_below, masked):
    q, k, queue = triple()
    mask = random_mask() if masked else None
    ours = objectives.moco_v2(q, k, queue, temperature=temperature, include_positive=positive_below, mask=mask)
    expected = literal_moco(q, k, queue, temperature, positive_below, mask)
    assert ours.item() == pytest.approx(expected, rel=1e-11)
    terms = objectives.moco_v2_terms(q, k, queue, temperature=temperature, include_positive=positive_below, mask=mask)
    assert terms["loss"].item() == ours.item()


def test_moco_v2_is_cross_entropy_with_the_key_at_place_zero():
    q, k, queue = triple()
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.2
    expected = F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
    assert objectives.moco_v2(q, k, queue).item() == pytest.approx(expected.item(), rel=1e-12)


def test_moco_v2_does_not_normalise():
    q, k, queue = triple()
    assert objectives.moco_v2(2 * q, k, 3 * queue).item() == pytest.approx(literal_moco(2 * q, k, 3 * queue, 0.2))


def test_moco_v2_of_equal_rows_is_log_of_all_logits():
    row = unit(1)
    value = objectives.moco_v2(row.repeat(4, 1), row.repeat(4, 1), row.repeat(9, 1))
    assert value.item() == pytest.approx(math.log(1 + 9), abs=1e-12)


@pytest.mark.parametrize("masked", [True, False])
def test_moco_v2_gradient_is_the_softmax_mean_minus_the_key_and_reaches_the_query_only(masked):
    q, k, queue = (t.requires_grad_() for t in triple())
    mask = random_mask() if masked else torch.zeros(6, 11, dtype=torch.bool)
    objectives.moco_v2(q, k, queue, mask=mask if masked else None).backward()
    assert k.grad is None
    assert queue.grad is None
    for i in range(6):
        kept = [k[i], *[n for n, out in zip(queue, mask[i], strict=True) if not out]]
        p = torch.stack([q[i] @ v / 0.2 for v in kept]).softmax(0)
        expected = (sum(w * v for w, v in zip(p, kept, strict=True)) - k[i]) / 0.2 / 6
        torch.testing.assert_close(q.grad[i], expected.detach(), rtol=0, atol=1e-12)


def test_decoupled_moco_is_the_log_of_the_odds():
    q, k, queue = triple(1)
    plain, decoupled = (objectives.moco_v2(q, k, queue, include_positive=p) for p in (True, False))
    assert plain.exp().item() == pytest.approx(1 + decoupled.exp().item(), rel=1e-12)


@pytest.mark.parametrize("positive_below", [True, False])
def test_a_query_whose_negatives_are_all_masked_adds_nothing(positive_below):
    q, k, queue = triple()
    q.requires_grad_()
    mask = torch.zeros(6, 11, dtype=torch.bool)
    mask[2] = True
    loss = objectives.moco_v2(q, k, queue, include_positive=positive_below, mask=mask)
    loss.backward()
    others = [0, 1, 3, 4, 5]
    rest = objectives.moco_v2(q[others], k[others], queue, include_positive=positive_below)
    assert loss.item() == pytest.approx(rest.item() * 5 / 6, rel=1e-12)
    assert q.grad.isfinite().all()
    assert q.grad[2].abs().max() < 1e-12


def test_moco_diagnostics_by_loops():
    q, k, queue = triple()
    queue[0] = F.normalize(q[0] + 0.01 * queue[0], dim=0)  # a negative that beats the first query's key
    mask = torch.zeros(6, 11, dtype=torch.bool)
    for masked in (False, True):
        mask[0, 0] = masked
        terms = objectives.moco_v2_terms(q, k, queue, mask=mask)
        wins = [all(m or dot(a, b) > dot(a, n) for m, n in zip(out, queue, strict=True)) for a, b, out in zip(
            q.tolist(), k.tolist(), mask.tolist(), strict=True)]  # fmt: skip
        assert wins[0] == masked
        assert terms["proxy_accuracy"].item() == pytest.approx(sum(wins) / 6)
    align = sum(
        sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a, b in zip(q.tolist(), k.tolist(), strict=True)
    )
    assert terms["alignment"].item() == pytest.approx(align / 6, rel=1e-12)
    pairs = [math.exp(-2 * sum((q[i] - q[j]) ** 2)) for i in range(6) for j in range(6) if i != j]
    assert terms["uniformity"].item() == pytest.approx(math.log(sum(pairs) / 30), rel=1e-12)
    assert not any(terms[name].requires_grad for name in ("proxy_accuracy", "alignment", "uniformity"))


def test_proxy_accuracy_is_the_same_in_parts_of_the_queue(monkeypatch):
    q, k, queue = triple(6, 50, 3)
    whole = objectives.moco_v2_terms(q, k, queue, mask=random_mask(6, 50))["proxy_accuracy"]
    monkeypatch.setattr("selftaught.objectives._queue.CHUNK", 24)
    assert objectives.moco_v2_terms(q, k, queue, mask=random_mask(6, 50))["proxy_accuracy"] == whole
    assert 0 < whole < 1


def test_one_query_is_enough_since_the_queue_has_the_negatives():
    terms = objectives.moco_v2_terms(*triple(1))
    assert terms["loss"].item() == pytest.approx(literal_moco(*triple(1), 0.2), rel=1e-12)
    assert terms["uniformity"].item() == 0


def test_half_precision_computes_in_float32():
    for name, args in (("moco_v2", triple()), ("moco_v3", [unit(5, seed=s) for s in range(4)])):
        function = getattr(objectives, name)
        single = [t.float() for t in args]
        half = [t.bfloat16().requires_grad_() for t in args]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, rounded = function(*single), function(*half)
        assert value.dtype == rounded.dtype == torch.float32
        assert value.item() == pytest.approx(function(*args).item(), abs=1e-5)
        assert torch.equal(rounded, function(*(t.float() for t in half)))


def test_wrong_input_is_refused_in_one_line():
    q, k, queue = triple()
    with pytest.raises(UserError, match="queue needs the shape"):
        objectives.moco_v2(q, k, queue[:, :3])
    with pytest.raises(UserError, match="1 entry or more"):
        objectives.moco_v2(q, k, queue[:0])
    with pytest.raises(UserError, match=r"bool of shape \(6, 11\)"):
        objectives.moco_v2(q, k, queue, mask=torch.zeros(6, 10, dtype=torch.bool))
    with pytest.raises(UserError, match="one shape"):
        objectives.moco_v2(q, k[:3], queue)
    with pytest.raises(UserError, match="temperature must be above 0"):
        objectives.moco_v2(q, k, queue, temperature=0)
    with pytest.raises(UserError, match="temperature must be above 0"):
        objectives.moco_v3(q, q, k, k, temperature=0)
    with pytest.raises(UserError, match="one shape"):
        objectives.moco_v3(q, q, k, k[:2])


def test_nan_is_passed_on():
    q, k, queue = triple()
    q[1, 1] = math.nan
    assert objectives.moco_v2(q, k, queue).isnan()
    assert objectives.moco_v2(q, k, queue, include_positive=False, mask=random_mask()).isnan()
    assert objectives.moco_v3(q, q, k, k).isnan()
