"""The sorting networks sort, and their relaxation is the sheet's, comparator by comparator."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.objectives._sorting import NETWORKS, RELAXATIONS

SIZES = [1, 2, 3, 4, 5, 7, 8, 11, 13]


def scores(rows=6, n=7, seed=0):
    return torch.randn(rows, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def alpha(kind, v):
    if kind == "cauchy":
        return 0.5 + math.atan(v) / math.pi
    if kind == "logistic":
        return 1 / (1 + math.exp(-v))
    if kind == "reciprocal":
        return 0.5 * (2 * v / (1 + 2 * abs(v))) + 0.5
    if v < -0.25:
        return -1 / (16 * v)
    return 1 - 1 / (16 * v) if v > 0.25 else v + 0.5


def literal_sort(row, layers, kind="cauchy", steepness=1.0):
    """One row, comparator by comparator, the permutation matrix mixed column by column."""
    x, n = list(row), len(row)
    p = [[float(i == j) for j in range(n)] for i in range(n)]
    for layer in layers:
        for a, b in layer:
            t = alpha(kind, steepness * (x[b] - x[a]))
            x[a], x[b] = t * x[a] + (1 - t) * x[b], (1 - t) * x[a] + t * x[b]
            for r in p:
                r[a], r[b] = t * r[a] + (1 - t) * r[b], (1 - t) * r[a] + t * r[b]
    return x, p


def brick_layers(n):
    return [[(a, a + 1) for a in range(layer % 2, n - 1, 2)] for layer in range(n)]


def alternating_bitonic_layers(n):
    """Batcher's textbook form for powers of two, in which every second block sorts downwards."""
    layers, size = [], 2
    while size <= n:
        step = size // 2
        while step:
            pairs = [(i, i ^ step) for i in range(n) if i < i ^ step]
            layers.append([(a, b) if a & size == 0 or size == n else (b, a) for a, b in pairs])
            step //= 2
        size *= 2
    return layers


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12])
def test_the_network_sorts_every_sequence_of_zeros_and_ones(network, n):
    """By the 0-1 principle it then sorts everything."""
    layers = objectives.sorting_network(n, network)
    for layer in layers:
        wires = [w for pair in layer for w in pair]
        assert len(set(wires)) == len(wires)
        assert all(0 <= a < b < n for a, b in layer)
    for row in itertools.product((0, 1), repeat=n):
        x = list(row)
        for a, b in itertools.chain.from_iterable(layers):
            x[a], x[b] = min(x[a], x[b]), max(x[a], x[b])
        assert x == sorted(row)


def test_the_odd_even_network_is_the_sheets_brick_and_bitonic_is_shallower():
    assert [list(layer) for layer in objectives.sorting_network(5)] == brick_layers(5)
    assert len(objectives.sorting_network(13)) == 13
    assert len(objectives.sorting_network(16, "bitonic")) == 10
    assert len(objectives.sorting_network(16)) == 16


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("n", SIZES)
def test_relaxed_sort_equals_its_comparators_one_by_one(network, n):
    x = scores(n=n)
    found, matrix = objectives.relaxed_sort(x, network=network, steepness=1.7)
    layers = brick_layers(n) if network == "odd_even" else objectives.sorting_network(n, network)
    for row, ours, p in zip(x.tolist(), found, matrix, strict=True):
        theirs, q = literal_sort(row, layers, steepness=1.7)
        torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64), rtol=0, atol=1e-12)
        torch.testing.assert_close(p, torch.tensor(q, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("steepness", [0.3, 1.0, 20.0])
def test_relaxations_are_their_formulas(relaxation, steepness):
    x = scores()
    found, matrix = objectives.relaxed_sort(x, relaxation=relaxation, steepness=steepness)
    for row, ours, p in zip(x.tolist(), found, matrix, strict=True):
        theirs, q = literal_sort(row, brick_layers(7), relaxation, steepness)
        torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64), rtol=0, atol=1e-10)
        torch.testing.assert_close(p, torch.tensor(q, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_for_powers_of_two_bitonic_equals_the_textbooks_alternating_form(n):
    x = scores(n=n)
    found, matrix = objectives.relaxed_sort(x, network="bitonic")
    for row, ours, p in zip(x.tolist(), found, matrix, strict=True):
        theirs, q = literal_sort(row, alternating_bitonic_layers(n))
        torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64), rtol=0, atol=1e-12)
        torch.testing.assert_close(p, torch.tensor(q, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_p_is_doubly_stochastic_and_maps_the_scores_to_the_sorted_ones(network, relaxation):
    x = scores(n=11)
    found, matrix = objectives.relaxed_sort(x, network=network, relaxation=relaxation)
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(1), torch.ones_like(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix.sum(2), torch.ones_like(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.einsum("ri,rij->rj", x, matrix), found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
def test_great_steepness_is_the_exact_permutation_and_none_mixes_evenly(network):
    x = torch.stack([torch.randperm(9, generator=torch.Generator().manual_seed(k)) for k in range(5)]).double()
    found, matrix = objectives.relaxed_sort(x, network=network, steepness=1e7)
    torch.testing.assert_close(found, torch.arange(9).double().expand(5, 9), rtol=0, atol=1e-5)
    exact = torch.nn.functional.one_hot(x.long(), 9).double()  # value v ends at rank v
    torch.testing.assert_close(matrix, exact, rtol=0, atol=1e-5)
    flat, _ = objectives.relaxed_sort(torch.tensor([[3.0, 5.0]]), network=network, steepness=0)
    assert flat.tolist() == [[4.0, 4.0]]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("n", SIZES)
def test_group_probability_is_the_sum_of_ps_upper_columns(network, n):
    x = scores(2 * 3, n).view(2, 3, n)
    _, matrix = objectives.relaxed_sort(x, network=network)
    assert matrix.shape == (2, 3, n, n)
    for first in range(n + 1):
        found = objectives.group_probability(x, first, network=network)
        torch.testing.assert_close(found, matrix[..., first:].sum(-1), rtol=0, atol=1e-12)


def test_gradients_by_finite_differences_of_both_functions():
    for network, relaxation in itertools.product(NETWORKS, ("cauchy", "logistic", "reciprocal")):
        x = scores(3, 5).requires_grad_()
        kinds = {"network": network, "relaxation": relaxation, "steepness": 2.0}
        assert torch.autograd.gradcheck(lambda s, k=kinds: objectives.relaxed_sort(s, **k), (x,))
        assert torch.autograd.gradcheck(lambda s, k=kinds: objectives.group_probability(s, 3, **k), (x,))


def test_optimal_relaxation_is_smooth_at_its_seams_and_half_at_zero():
    gaps = torch.tensor([-0.2500001, -0.25, 0.0, 0.25, 0.2500001], dtype=torch.float64)
    x = torch.stack([torch.zeros(5, dtype=torch.float64), gaps], 1).requires_grad_()
    upper = objectives.group_probability(x, 1, relaxation="optimal")[:, 1]
    assert upper.tolist() == pytest.approx([0.25, 0.25, 0.5, 0.75, 0.75], abs=1e-6)
    (slope,) = torch.autograd.grad(upper.sum(), x)
    assert slope[:, 1].tolist() == pytest.approx([1.0] * 5, abs=1e-5)


def test_monotonic_relaxations_never_lower_a_rank_when_a_score_rises():
    rising = scores(1, 6).repeat(50, 1)
    rising[:, 2] += torch.linspace(-3, 3, 50, dtype=torch.float64)
    for relaxation in ("cauchy", "reciprocal", "optimal"):
        found, _ = objectives.relaxed_sort(rising, relaxation=relaxation)
        assert (found.diff(dim=0) >= -1e-9).all()


def test_autocast_and_half_precision_compute_in_float32():
    x = scores(4, 11).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = objectives.group_probability(x, 10)
        half = objectives.group_probability(x.bfloat16(), 10)
    assert torch.equal(under, objectives.group_probability(x, 10))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.sum(1), torch.ones(4), rtol=0, atol=1e-5)


def test_wrong_input_is_refused_in_one_line():
    x = scores()
    with pytest.raises(UserError, match="network must be one of odd_even, bitonic"):
        objectives.relaxed_sort(x, network="merge")
    with pytest.raises(UserError, match="relaxation must be one of cauchy"):
        objectives.group_probability(x, 3, relaxation="normal")
    with pytest.raises(UserError, match="steepness must be 0 or above and finite"):
        objectives.relaxed_sort(x, steepness=-1.0)
    with pytest.raises(UserError, match="steepness must be 0 or above and finite"):
        objectives.relaxed_sort(x, steepness=math.inf)
    with pytest.raises(UserError, match="first=8 is no rank of 7 scores"):
        objectives.group_probability(x, 8)
    with pytest.raises(UserError, match="floating-point values"):
        objectives.relaxed_sort(torch.zeros(3, 0))
    with pytest.raises(UserError, match="floating-point values"):
        objectives.relaxed_sort(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(UserError, match="at least 1 wire"):
        objectives.sorting_network(0)
