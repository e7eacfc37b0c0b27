"""Sinkhorn's codes and the swapped prediction against loops in float64, and against what only the right formula has."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from selftaught.errors import UserError


def cosines(rows: int, count: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    z, c = (F.normalize(torch.randn(n, 6, generator=g, dtype=torch.float64), dim=1) for n in (rows, count))
    return z @ c.T


def literal_sinkhorn(scores: np.ndarray, eps: float, iters: int, exponent: float = 0.0) -> np.ndarray:
    """The sheet's operations one after the other on Q (K x n); returns (n, K)."""
    n, count = scores.shape
    prior = [(k + 1) ** -exponent for k in range(count)]
    prior = [r / sum(prior) for r in prior]
    q = [[math.exp(scores[b, k] / eps) for b in range(n)] for k in range(count)]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(iters):
        q = [[value / sum(row) * r for value in row] for row, r in zip(q, prior, strict=True)]
        sums = [sum(row[b] for row in q) for b in range(n)]
        q = [[row[b] / sums[b] / n for b in range(n)] for row in q]
    if iters == 0:
        sums = [sum(row[b] for row in q) for b in range(n)]
        q = [[row[b] / sums[b] / n for b in range(n)] for row in q]
    return np.array(q).T * n


def literal_swav(scores: list[np.ndarray], codes: list[np.ndarray], crops: tuple[int, ...], tau: float) -> float:
    rows, count = scores[0].shape
    total = 0.0
    for i, q in zip(crops, codes, strict=True):
        for v, s in enumerate(scores):
            if v == i:
                continue
            inner = 0.0
            for b in range(rows):
                below = math.log(sum(math.exp(x / tau) for x in s[b]))
                inner -= sum(q[b, k] * (s[b, k] / tau - below) for k in range(count))
            total += inner / rows / (len(scores) - 1)
    return total / len(crops)


@pytest.mark.parametrize("eps", [0.03, 0.05, 0.5])
@pytest.mark.parametrize("iters", [0, 1, 3, 10])
@pytest.mark.parametrize("exponent", [0.0, 0.7])
def test_codes_equal_the_operations_one_by_one(eps: float, iters: int, exponent: float) -> None:
    scores = cosines(11, 5)
    ours = objectives.sinkhorn(scores, eps=eps, iters=iters, power_law=exponent)
    np.testing.assert_allclose(ours, literal_sinkhorn(scores.numpy(), eps, iters, exponent), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.sum(1), 1, atol=1e-12)


def test_many_rounds_give_every_prototype_its_share() -> None:
    scores = cosines(24, 6)
    equal = objectives.sinkhorn(scores, eps=0.2, iters=500)
    np.testing.assert_allclose(equal.sum(0), 24 / 6, atol=1e-8)
    law = objectives.sinkhorn(scores, eps=0.2, iters=500, power_law=0.5)
    wanted = np.arange(1, 7) ** -0.5
    np.testing.assert_allclose(law.sum(0), 24 * wanted / wanted.sum(), atol=1e-8)
    few = objectives.sinkhorn(scores, eps=0.05, iters=1)
    assert (few.sum(0) - 4).abs().max() > 0.05  # columns come last: the shares are only nearly met


def test_what_shifts_change_and_what_they_do_not() -> None:
    scores, g = cosines(9, 4), torch.Generator().manual_seed(5)
    codes = objectives.sinkhorn(scores)
    per_prototype = torch.randn(4, generator=g, dtype=torch.float64) / 10
    per_sample = torch.randn(9, 1, generator=g, dtype=torch.float64) / 10
    torch.testing.assert_close(objectives.sinkhorn(scores + 3), codes, rtol=0, atol=1e-12)
    torch.testing.assert_close(objectives.sinkhorn(scores + per_prototype), codes, rtol=0, atol=1e-12)
    assert (objectives.sinkhorn(scores + per_sample) - codes).abs().max() > 1e-3
    many = [objectives.sinkhorn(s, eps=0.2, iters=500) for s in (scores, scores + per_sample)]
    torch.testing.assert_close(*many, rtol=0, atol=1e-8)
    plain = objectives.sinkhorn(scores + per_prototype, iters=0)
    assert (plain - objectives.sinkhorn(scores, iters=0)).abs().max() > 1e-2


def test_limits_of_eps_and_no_rounds() -> None:
    order = torch.tensor([2, 0, 3, 1])
    permutation = torch.eye(4, dtype=torch.float64)[order]
    noisy = permutation + 0.1 * cosines(4, 4)
    torch.testing.assert_close(objectives.sinkhorn(noisy, eps=0.005, iters=50), permutation, rtol=0, atol=1e-8)
    scores = cosines(8, 5)
    torch.testing.assert_close(objectives.sinkhorn(scores, eps=1e9), torch.full_like(scores, 0.2), rtol=0, atol=1e-8)
    plain = objectives.sinkhorn(scores, eps=0.05, iters=0)
    torch.testing.assert_close(plain, (scores / 0.05).softmax(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(objectives.sinkhorn(torch.zeros(6, 3)), torch.full((6, 3), 1 / 3))


def test_equal_partition_breaks_ties_that_a_softmax_does_not() -> None:
    """All samples prefer prototype 0; a softmax gives them all to it, the partition shares them out."""
    scores = cosines(20, 4) * 0.1
    scores[:, 0] += 0.8
    assert set(objectives.sinkhorn(scores, iters=0).argmax(1).tolist()) == {0}
    assert set(objectives.sinkhorn(scores).argmax(1).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("eps", [0.03, 0.003])
def test_float32_neither_overflows_nor_starves_a_prototype(eps: float) -> None:
    scores = cosines(40, 8)
    scores[:, 3] = -1.0  # exp(-2 / 0.003) is 0 in every floating-point type
    ours = objectives.sinkhorn(scores.float(), eps=eps, iters=10)
    exact = objectives.sinkhorn(scores, eps=eps, iters=10)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=2e-4)
    assert ours[:, 3].sum() > 0.5


def test_hard_codes_are_the_largest_entries() -> None:
    scores = cosines(12, 5)
    soft, hard = objectives.sinkhorn(scores), objectives.sinkhorn(scores, hard=True)
    assert torch.equal(hard, F.one_hot(soft.argmax(1), 5).double())


def test_two_processes_with_joined_rows_give_the_codes_of_one() -> None:
    scores, parts = cosines(14, 5), {}
    barrier, shared = threading.Barrier(2), {}

    def process(rank: int) -> None:
        def join(x: torch.Tensor) -> torch.Tensor:
            shared[rank] = x
            barrier.wait(10)
            found = torch.cat([shared[0], shared[1]])
            barrier.wait(10)
            return found

        parts[rank] = objectives.sinkhorn(scores[7 * rank : 7 * rank + 7], join=join)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = objectives.sinkhorn(scores)
    torch.testing.assert_close(torch.cat([parts[0], parts[1]]), together, rtol=0, atol=1e-12)
    alone = objectives.sinkhorn(scores[:7])
    assert (alone - together[:7]).abs().max() > 1e-3


@pytest.mark.parametrize("crops", [(0, 1), (1,), (0, 2)])
@pytest.mark.parametrize("count", [3, 5])
def test_swav_equals_its_formula(crops: tuple[int, ...], count: int) -> None:
    scores = [cosines(7, 4, seed) for seed in range(count)]
    ours = objectives.swav(*scores, crops_for_assign=crops, temperature=0.2, eps=0.1, iters=4)
    codes = [literal_sinkhorn(scores[i].numpy(), 0.1, 4) for i in crops]
    expected = literal_swav([s.numpy() for s in scores], codes, crops, 0.2)
    assert ours.item() == pytest.approx(expected, rel=1e-10)


def test_swav_of_two_crops_is_the_symmetric_form() -> None:
    s1, s2 = cosines(9, 4, 0), cosines(9, 4, 1)
    q1, q2 = (objectives.sinkhorn(s) for s in (s1, s2))
    expected = (F.cross_entropy(s2 / 0.1, q1) + F.cross_entropy(s1 / 0.1, q2)) / 2
    assert objectives.swav(s1, s2).item() == pytest.approx(expected.item(), rel=1e-12)
    assert objectives.swav(s2, s1).item() == pytest.approx(expected.item(), rel=1e-12)


def test_zero_scores_give_log_k_and_prototypes_have_no_order() -> None:
    zero = torch.zeros(6, 8, dtype=torch.float64)
    assert objectives.swav(zero, zero, zero).item() == pytest.approx(math.log(8), abs=1e-12)
    scores = [cosines(6, 8, seed) for seed in range(3)]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    reference = objectives.swav(*scores).item()
    assert objectives.swav(*[s[:, order] for s in scores]).item() == pytest.approx(reference, abs=1e-12)
    assert abs(objectives.swav(*[s[:, order] for s in scores], power_law=1.0).item() - reference) > 1e-3


def test_queue_takes_part_in_the_partition_only() -> None:
    scores = [cosines(6, 4, seed) for seed in range(3)]
    queue = [cosines(20, 4, 10 + seed) for seed in range(2)]
    codes = [literal_sinkhorn(np.concatenate([queue[i], scores[i]]), 0.05, 3)[-6:] for i in (0, 1)]
    expected = literal_swav([s.numpy() for s in scores], codes, (0, 1), 0.1)
    ours = objectives.swav(*scores, queue=queue)
    assert ours.item() == pytest.approx(expected, rel=1e-10)
    assert abs(objectives.swav(*scores).item() - expected) > 1e-3


def test_gradient_flows_through_the_predictions_of_every_crop_and_through_no_code() -> None:
    scores = [cosines(5, 4, seed).requires_grad_() for seed in range(4)]
    objectives.swav(*scores, temperature=0.3).backward()
    codes = [objectives.sinkhorn(scores[i]) for i in (0, 1)]
    assert not codes[0].requires_grad
    for v, s in enumerate(scores):
        # d/ds of a cross-entropy with constant target q: (softmax - q) / tau / B, averaged as the loss is
        p = (s.detach() / 0.3).softmax(1)
        wanted = sum((p - codes[i]) / 0.3 / 5 / 3 / 2 for i in (0, 1) if i != v)
        torch.testing.assert_close(s.grad, wanted, rtol=0, atol=1e-12)


def test_gradcheck_with_given_codes() -> None:
    scores = [cosines(4, 3, seed).requires_grad_() for seed in range(3)]
    codes = torch.stack([objectives.sinkhorn(scores[i]) for i in (0, 1)])
    assert torch.autograd.gradcheck(lambda *s: objectives.swapped_prediction(*s, codes=codes), scores)


def test_terms_show_a_collapse() -> None:
    spread = [cosines(64, 8, seed) for seed in range(2)]
    assert objectives.swav_terms(*spread)["used"].item() == 1.0
    same = [torch.eye(8, dtype=torch.float64)[torch.zeros(64, dtype=torch.int64)] for _ in range(2)]
    collapsed = objectives.swav_terms(*same, iters=0)
    assert collapsed["used"].item() == pytest.approx(1 / 8)
    assert collapsed["code_entropy"].item() == pytest.approx(0, abs=1e-5)
    zero = torch.zeros(6, 8, dtype=torch.float64)
    assert objectives.swav_terms(zero, zero)["code_entropy"].item() == pytest.approx(math.log(8))


def test_half_precision_and_autocast_compute_in_float32() -> None:
    scores = [cosines(16, 4, seed).float() for seed in range(3)]
    halves = [s.bfloat16().requires_grad_() for s in scores]
    expected = objectives.swav(*scores)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, half = objectives.swav(*scores), objectives.swav(*halves)
    assert under.dtype == half.dtype == torch.float32
    assert torch.equal(under, expected)
    assert torch.equal(half, objectives.swav(*[h.detach().float() for h in halves]))
    half.backward()
    assert halves[2].grad.dtype == torch.bfloat16
    double = objectives.swav(*[s.double() for s in scores])
    assert expected.item() == pytest.approx(double.item(), abs=1e-5)


def test_nan_is_passed_on() -> None:
    scores = [cosines(5, 3, seed) for seed in range(2)]
    scores[0][1, 1] = math.nan
    assert objectives.swav(*scores).isnan()


def test_wrong_input_is_refused_in_one_line() -> None:
    s = cosines(5, 3)
    with pytest.raises(UserError, match="at least 2"):
        objectives.swav(s)
    with pytest.raises(UserError, match=r"\(5, 3\) and \(4, 3\)"):
        objectives.swav(s, s[:4])
    with pytest.raises(UserError, match="crops_for_assign"):
        objectives.swav(s, s, crops_for_assign=(0, 2))
    with pytest.raises(UserError, match="crops_for_assign"):
        objectives.swav(s, s, crops_for_assign=())
    with pytest.raises(UserError, match="1 queues for 2"):
        objectives.swav(s, s, queue=[s])
    with pytest.raises(UserError, match="temperature must be above 0"):
        objectives.swav(s, s, temperature=0.0)
    with pytest.raises(UserError, match="eps must be above 0"):
        objectives.sinkhorn(s, eps=0.0)
    with pytest.raises(UserError, match="negative"):
        objectives.sinkhorn(s, iters=-1)
    with pytest.raises(UserError, match="negative"):
        objectives.sinkhorn(s, power_law=-0.5)
    with pytest.raises(UserError, match=r"shape \(2, 5, 3\)"):
        objectives.swapped_prediction(s, s, codes=s)
