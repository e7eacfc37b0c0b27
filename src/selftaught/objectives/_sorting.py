"""Differentiable sorting networks: relaxed ranks of a few scores (Petersen et al., ICML 2021 and ICLR 2022).

A sorting network is a fixed sequence of layers of disjoint comparators. Its relaxation replaces the hard swap of two
wires a < b with values x_a, x_b by a mixture; F is a distribution function with F(-v) = 1 - F(v):

    alpha = F(steepness (x_b - x_a)),   x_a' = alpha x_a + (1 - alpha) x_b,   x_b' = (1 - alpha) x_a + alpha x_b

A layer is thus a symmetric doubly stochastic matrix A_t, and P = A_1 A_2 ... A_L has P[i, j] = relaxed probability that
input i ends at rank j, ascending.

A layer is a handful of operations on all of its pairs and all rows at once, with the wires as the first dimension and
no matrix product. :func:`group_probability` needs P only summed over some ranks, P e, and multiplies the layers from
the right: n numbers per row instead of n x n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, in_float32

NETWORKS = ("odd_even", "bitonic")
RELAXATIONS = ("cauchy", "logistic", "reciprocal", "optimal")

Layer = tuple[tuple[int, int], ...]


@lru_cache(maxsize=64)
def sorting_network(n: int, network: str = "odd_even") -> tuple[Layer, ...]:
    """The comparators (a, b), a < b, of a network that sorts n wires ascending, layer by layer.

    Args:
        n: wires, at least 1.
        network: ``"odd_even"``: n layers of neighbours, (0,1), (2,3).. and (1,2), (3,4).. in turns; or ``"bitonic"``:
            about log2(n)^2 / 2 layers, in the form in which every comparator points upwards, so that it sorts any n
            (wires above n are left out) and not only powers of two.

    Returns:
        A tuple of layers, each a tuple of pairs; a wire occurs once at most in a layer, and then isn't compared again.

    Raises:
        UserError: n below 1, an unknown network.
    """
    check_choice("network", network, NETWORKS)
    if n < 1:
        raise UserError(f"a sorting network needs at least 1 wire, got {n}")
    if network == "odd_even":
        return tuple(tuple((a, a + 1) for a in range(t % 2, n - 1, 2)) for t in range(n))
    found: list[Layer] = []
    size = 2
    while size < 2 * n:
        half = size // 2
        starts = range(0, n, size)
        found.append(tuple((s + i, s + size - 1 - i) for s in starts for i in range(half) if s + size - 1 - i < n))
        step = half // 2
        while step:
            found.append(tuple((a, a + step) for a in range(n - step) if not a & step))
            step //= 2
        size *= 2
    return tuple(layer for layer in found if layer)


@in_float32
def relaxed_sort(
    scores: Tensor, *, network: str = "odd_even", relaxation: str = "cauchy", steepness: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Relaxed ascending order of the last dimension.

    Args:
        scores: (..., n).
        network: see :func:`sorting_network`.
        relaxation: F at v = steepness (x_b - x_a): ``"cauchy"`` 1/2 + atan(v)/pi; ``"logistic"`` 1/(1 + exp(-v));
            ``"reciprocal"`` 1/2 + v/(1 + 2|v|); ``"optimal"`` 1/2 + v for |v| <= 1/4, else 1 - 1/(16 v) (v > 0) or
            -1/(16 v). All but the logistic keep the network monotonic in its inputs.
        steepness: 0 or above, finite; 0 mixes every pair equally, a large one sorts hard.

    Returns:
        The relaxed sorted scores (..., n) and P (..., n, n), rows inputs, columns ranks, doubly stochastic.

    Raises:
        UserError: an unknown network or relaxation, a negative or infinite steepness, no scores, integers.
    """
    plan, wires, shares = _run(scores, network, relaxation, steepness)
    n = scores.shape[-1]
    identity = torch.eye(n, dtype=wires.dtype, device=wires.device).unsqueeze(2).expand(n, n, wires.shape[1])
    matrix = _from_the_right(plan, shares, identity)
    return _rows(wires, scores.shape), matrix.permute(2, 0, 1).reshape(*scores.shape, n)


@in_float32
def group_probability(
    scores: Tensor, first: int, *, network: str = "odd_even", relaxation: str = "cauchy", steepness: float = 1.0
) -> Tensor:
    """Relaxed probability of every input to end among the ranks ``first``, ``first`` + 1, ..., n - 1 (the largest).

    The row sums of these columns of :func:`relaxed_sort`'s P, without making P. Arguments as there.

    Args:
        scores: (..., n).
        first: the first rank of the upper group, 0 to n; 0 gives ones, n zeros.

    Returns:
        (..., n); sums to n - ``first`` over the last dimension.
    """
    n = scores.shape[-1] if scores.dim() else 0
    if not 0 <= first <= n:
        raise UserError(f"first={first} is no rank of {n} scores: give 0 to {n}")
    plan, wires, shares = _run(scores, network, relaxation, steepness)
    upper = (torch.arange(n, device=scores.device) >= first).to(wires.dtype)
    return _rows(_from_the_right(plan, shares, upper.unsqueeze(1).expand_as(wires)), scores.shape)


class _Layer(NamedTuple):
    """Where a layer finds its wires: lower ends, upper ends, idle ones, as places in what the layer before left."""

    order: Tensor
    back: Tensor
    sizes: list[int]


class _Plan(NamedTuple):
    layers: list[_Layer]
    last: Tensor
    """Place of rank j in what the last layer leaves."""
    back: Tensor


@lru_cache(maxsize=64)
def _plan(n: int, network: str, device: torch.device) -> _Plan:
    """The layers as index tensors; the wires stay in the order in which a layer leaves them, one gather per layer."""
    place = list(range(n))  # of each wire in the current state
    layers: list[_Layer] = []
    for pairs in sorting_network(n, network):
        lower, upper = [a for a, _ in pairs], [b for _, b in pairs]
        used = {*lower, *upper}
        wires = [*lower, *upper, *(w for w in range(n) if w not in used)]
        order = torch.tensor([place[w] for w in wires])
        layers.append(_Layer(order.to(device), order.argsort().to(device), [len(pairs), len(pairs), n - len(used)]))
        for position, wire in enumerate(wires):
            place[wire] = position
    last = torch.tensor(place)
    return _Plan(layers, last.to(device), last.argsort().to(device))


def _run(scores: Tensor, network: str, relaxation: str, steepness: float) -> tuple[_Plan, Tensor, list[Tensor]]:
    """Sort: the plan, the relaxed sorted scores (n, M), and every layer's 1 - alpha (pairs, M)."""
    check_choice("relaxation", relaxation, RELAXATIONS)
    if not 0 <= steepness < math.inf:
        raise UserError(f"steepness must be 0 or above and finite, got {steepness}")
    if not scores.dim() or not scores.shape[-1] or not scores.is_floating_point():
        raise UserError(f"scores need floating-point values (..., n), got {tuple(scores.shape)} {scores.dtype}")
    n = scores.shape[-1]
    plan, share_of = _plan(n, network, scores.device), _SHARES[relaxation]
    state, shares = scores.reshape(-1, n).T.contiguous(), []
    for layer in plan.layers:
        lower, upper, idle = state.index_select(0, layer.order).split(layer.sizes)
        gap = upper - lower
        share = share_of(gap * steepness)
        state = _mixed(lower, upper, idle, share * gap)
        shares.append(share)
    return plan, state.index_select(0, plan.last), shares


def _from_the_right(plan: _Plan, shares: list[Tensor], vectors: Tensor) -> Tensor:
    """A_1 ... A_L v for vectors (n, M), or (n, k, M): k of them."""
    state = vectors.index_select(0, plan.back)
    for layer, share in zip(reversed(plan.layers), reversed(shares), strict=True):
        lower, upper, idle = state.split(layer.sizes)
        share = share if vectors.dim() == 2 else share.unsqueeze(1)
        state = _mixed(lower, upper, idle, share * (upper - lower)).index_select(0, layer.back)
    return state


def _mixed(lower: Tensor, upper: Tensor, idle: Tensor, moved: Tensor) -> Tensor:
    return torch.cat([lower + moved, upper - moved, idle])


def _rows(wires: Tensor, shape: torch.Size) -> Tensor:
    return wires.T.reshape(shape)


# ---- 1 - alpha at v = steepness (x_b - x_a): what crosses over; computed as such, it keeps its precision near 0 -----
def _cauchy(v: Tensor) -> Tensor:
    return torch.rsub(v.atan(), 0.5, alpha=1 / math.pi)


def _logistic(v: Tensor) -> Tensor:
    return torch.sigmoid(-v)


def _reciprocal(v: Tensor) -> Tensor:
    return 0.5 - v / (1 + 2 * v.abs())


def _optimal(v: Tensor) -> Tensor:
    tail = 1 / (16 * v.abs().clamp(min=0.25))
    return torch.where(v.abs() <= 0.25, 0.5 - v, torch.where(v > 0, tail, 1 - tail))


_SHARES: dict[str, Callable[[Tensor], Tensor]] = dict(
    zip(RELAXATIONS, (_cauchy, _logistic, _reciprocal, _optimal), strict=True)
)
