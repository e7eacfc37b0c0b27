"""Contrastive attraction and contrastive repulsion (CACR, Zheng et al., TMLR 2023, arXiv 2105.03746).

Two expected costs in place of a softmax cross-entropy: positives weigh the more the FARTHER they are, negatives the
more the CLOSER they are. CACR's temperatures multiply distances, they are no divisors; all vectors are unit vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._blocks import by_rows
from selftaught.objectives._common import (
    NO_NEGATIVES,
    check_choice,
    check_entries,
    check_positive,
    check_views,
    expect_unit,
    in_float32,
    one_number,
    softplus,
)
from selftaught.objectives._tiled import lse_rows

__all__ = ["cacr", "cacr_momentum", "cacr_queue", "cacr_queue_terms", "cacr_supervised", "cacr_terms"]

CHOICES = ("full", "without_w1", "without_w2", "none")
COSTS = ("euclidean", "rbf")


def cacr(
    z1: Tensor,
    z2: Tensor,
    *others: Tensor,
    tau_pos: float = 1.0,
    tau_neg: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    choice: str = "full",
    cost: str = "euclidean",
    t: float = 2.0,
    tau_plus: float = 0.0,
    detach_weights: bool = False,
    symmetric: bool = False,
) -> Tensor:
    """CACR of V = K + 1 views (arXiv 2105.03746, eq. 5-9), the form of the small-scale experiments.

    With d(a, b) = ||a - b||^2 and softmaxes over the positives u != v of a query and over its negatives j != i:

        L_CA = mean_{v,i}       sum_{u != v} softmax_u(  tau_pos d(z_i^v, z_i^u) ) *  alpha d(z_i^v, z_i^u)
        L_CR = mean_{v<u} mean_i sum_{j != i} softmax_j( -tau_neg d(z_i^v, z_j^u) ) * (-beta  d(z_i^v, z_j^u))
        L    = L_CA + L_CR

    Queries come from the earlier view of a pair, negatives from the later one; same-view negatives don't enter. The
    gradient flows through both softmaxes. ``choice="none"`` is the uniform-weight baseline, and with ``cost="rbf"`` too
    it is alignment and uniformity (Wang and Isola 2020).

    Args:
        z1: (B, D) embeddings of the first view, **unit vectors already**: nothing is normalised here.
        z2: (B, D) embeddings of the second view; row i belongs to the same sample in all views.
        *others: further views (B, D).
        tau_pos: inverse temperature t+ of the positives' weights, 0 or more.
        tau_neg: inverse temperature t- of the negatives' weights, 0 or more.
        alpha: factor on the attraction's cost; not on the weights.
        beta: factor on the repulsion's cost; not on the weights.
        choice: ``"full"``; ``"without_w1"`` (uniform positives), ``"without_w2"`` (uniform negatives) or ``"none"``.
        cost: of the negatives; ``"rbf"`` replaces L_CR by the mean over v<u of beta log mean_i sum_j exp(-t d) pi_j,
            with the same weights.
        t: of the rbf cost.
        tau_plus: debiasing, the probability that a negative is of the query's class: the repulsion r_i of a query
            becomes (-tau_plus d(z_i^v, z_i^u) + r_i) / (1 - tau_plus), sign as in the authors' code. 0 turns it off.
        detach_weights: treat the softmax weights as constants.
        symmetric: repulsion over both orders of each pair of views (mean), not only v < u.

    Returns:
        A scalar; for unit vectors in [-4 beta, 4 alpha] with the Euclidean cost and without ``tau_plus``.

    Raises:
        UserError: (a ``ValueError``) B < 2 (no negatives), shapes differ, an unknown ``choice`` or ``cost``, a negative
            temperature, ``tau_plus`` outside [0, 1) or together with the rbf cost.
    """
    return cacr_terms(
        z1, z2, *others, tau_pos=tau_pos, tau_neg=tau_neg, alpha=alpha, beta=beta, choice=choice, cost=cost, t=t,
        tau_plus=tau_plus, detach_weights=detach_weights, symmetric=symmetric,
    )["loss"]  # fmt: skip


@in_float32
def cacr_terms(
    z1: Tensor,
    z2: Tensor,
    *others: Tensor,
    tau_pos: float = 1.0,
    tau_neg: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    choice: str = "full",
    cost: str = "euclidean",
    t: float = 2.0,
    tau_plus: float = 0.0,
    detach_weights: bool = False,
    symmetric: bool = False,
) -> dict[str, Tensor]:
    """:func:`cacr` with its terms: ``loss``, ``attraction`` (L_CA) and ``repulsion`` (L_CR)."""
    views = (z1, z2, *others)
    rows, _ = check_views(*views, minimum=2, why=NO_NEGATIVES)
    _check(choice, cost, tau_pos, tau_neg)
    check_positive(t=t)
    if not 0 <= tau_plus < 1 or (tau_plus and cost == "rbf"):
        raise UserError(f"tau_plus must lie in [0, 1) and goes with cost=euclidean only, got {tau_plus} and {cost}")
    expect_unit("cacr", *views)
    weighted = choice in ("full", "without_w1")
    own = torch.arange(rows, device=z1.device)
    repulsions = []
    for v, u in _pairs(len(views), symmetric):

        def expected(query: Tensor, i: Tensor, keys: Tensor = views[u]) -> Tensor:
            distance, left_out = squared_distances(query, keys), i.unsqueeze(1) == own
            logits = -tau_neg * distance if weighted else None
            if cost == "rbf":
                return _log_expectation(-t * distance, logits, left_out, detach_weights)
            return _expectation(-beta * distance, logits, left_out, detach_weights)

        values = by_rows(expected, views[v], own, width=rows)
        if tau_plus:
            values = (values - tau_plus * (views[v] - views[u]).square().sum(1)) / (1 - tau_plus)
        repulsions.append(beta * (values.logsumexp(0) - math.log(rows)) if cost == "rbf" else values.mean())
    weighted = choice in ("full", "without_w2")
    attraction = _attraction(torch.stack(views), torch.stack(views), tau_pos, weighted, detach_weights) * alpha
    repulsion = torch.stack(repulsions).mean()
    return {"loss": attraction + repulsion, "attraction": attraction, "repulsion": repulsion}


@in_float32
def cacr_supervised(
    z1: Tensor,
    z2: Tensor,
    *others: Tensor,
    labels: Tensor,
    tau_pos: float = 1.0,
    tau_neg: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    choice: str = "full",
    detach_weights: bool = False,
) -> Tensor:
    """CACR with classes: a query's positives are all other views of its class, its negatives all views of the others.

        L = mean_a [   sum_{p in P(a)} softmax_p( tau_pos d_ap) alpha d_ap
                     - sum_{n in N(a)} softmax_n(-tau_neg d_an) beta  d_an ]

    over the V B views a of a batch; a query whose batch holds no other class is attracted only. It is the reading of
    :func:`cacr`'s two conditional distributions for known classes, as SupCon is that of SimCLR: with a class per
    sample the positives are those of :func:`cacr`.

    Args:
        z1: (B, D) unit vectors of the first view; with z2 and ``others`` as in :func:`cacr`.
        z2: (B, D) unit vectors of the second view.
        *others: further views.
        labels: (B,) int64 class of each sample.
        tau_pos: as in :func:`cacr`, and so are the other hyper-parameters.
        tau_neg: see ``tau_pos``.
        alpha: see ``tau_pos``.
        beta: see ``tau_pos``.
        choice: see ``tau_pos``.
        detach_weights: see ``tau_pos``.

    Raises:
        UserError: (a ``ValueError``) as :func:`cacr`, or labels that aren't (B,).
    """
    views = (z1, z2, *others)
    rows, _ = check_views(*views, minimum=1)
    _check(choice, "euclidean", tau_pos, tau_neg)
    expect_unit("cacr", *views)
    if labels.shape != (rows,):
        raise UserError(f"labels must be one per sample, ({rows},), got {tuple(labels.shape)}")
    if labels.is_floating_point():
        raise UserError(f"labels must be integers, got {labels.dtype}")
    z, y = torch.cat(views), labels.repeat(len(views))
    own = torch.arange(len(z), device=z.device)

    def cost(query: Tensor, label: Tensor, i: Tensor) -> Tensor:
        distance, same = squared_distances(query, z), label.unsqueeze(1) == y
        pull = tau_pos * distance if choice in ("full", "without_w2") else None
        push = -tau_neg * distance if choice in ("full", "without_w1") else None
        positives = _expectation(distance, pull, ~same | (i.unsqueeze(1) == own), detach_weights)
        return alpha * positives - beta * _expectation(distance, push, same, detach_weights)

    return by_rows(cost, z, y, own, width=2 * len(z)).mean()


def cacr_queue(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    queue: Tensor,
    *,
    tau_pos: float = 1.0,
    tau_neg: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    choice: str = "full",
    intra_batch: bool = True,
) -> Tensor:
    """CACR against a queue of momentum keys (arXiv 2105.03746, large-scale experiments).

    The query q_i^v is attracted to the keys k_i^u of the other views and repelled from the rows n of the queue and,
    with ``intra_batch``, from the other queries q_j^v of its own view; means over i and v:

        sum_{u != v} pi+_u alpha ||q_i^v - k_i^u||^2  -  sum_n pi-_n beta ||q_i^v - n||^2

    The positives' weights are constants, and so are the logits of the queue's part of the negatives' softmax; those of
    the batch's part carry gradient, as in the authors' code. The distances to the queue are made anew for each view
    (the released code reuses the first view's).

    Args:
        queries: V = K + 1 unit embeddings (B, D), with gradient.
        keys: V unit embeddings (B, D) of the same views by the momentum copy; taken as constants.
        queue: (N, D) unit rows; a constant. Push the last view's keys after the step.
        tau_pos: as in :func:`cacr`, and so are the others down to ``choice``.
        tau_neg: see ``tau_pos``.
        alpha: see ``tau_pos``.
        beta: see ``tau_pos``.
        choice: see ``tau_pos``.
        intra_batch: the batch's own queries are negatives, too.

    Raises:
        UserError: (a ``ValueError``) fewer than two views, unequal numbers or shapes, an unknown ``choice``.
    """
    return cacr_queue_terms(
        queries, keys, queue, tau_pos=tau_pos, tau_neg=tau_neg, alpha=alpha, beta=beta, choice=choice,
        intra_batch=intra_batch,
    )["loss"]  # fmt: skip


def cacr_queue_terms(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    queue: Tensor,
    *,
    tau_pos: float = 1.0,
    tau_neg: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    choice: str = "full",
    intra_batch: bool = True,
) -> dict[str, Tensor]:
    """:func:`cacr_queue` with its terms: ``loss``, ``attraction`` and ``repulsion``."""
    if len(queries) < 2 or len(queries) != len(keys):
        raise UserError(f"give queries and keys of the same two or more views, got {len(queries)} and {len(keys)}")
    _check(choice, "euclidean", tau_pos, tau_neg)
    _, width = check_views(*queries, *keys)
    check_entries(queue, width, minimum=0)
    expect_unit("cacr", *queries, *keys, queue)
    q, k, negatives = _stack_in_float32(queries), _stack_in_float32(keys).detach(), queue.detach()
    return _queue_terms(q, k, negatives, tau_pos, tau_neg, alpha, beta, choice, intra_batch)


@in_float32
def _queue_terms(
    q: Tensor, k: Tensor, queue: Tensor, tau_pos: float, tau_neg: float, alpha: float, beta: float, choice: str,
    intra_batch: bool,
) -> dict[str, Tensor]:  # fmt: skip
    check_views(q[0], k[0], minimum=2 if intra_batch and not len(queue) else 1, why=NO_NEGATIVES)
    own = torch.arange(q.shape[1], device=q.device)
    weighted = choice in ("full", "without_w1")
    attraction = _attraction(q, k, tau_pos, choice in ("full", "without_w2"), detach=True) * alpha
    repulsions = []
    for view in q:

        def expected(query: Tensor, i: Tensor, batch: Tensor = view) -> Tensor:
            distance = squared_distances(query, queue)
            logits, left_out = -tau_neg * distance.detach(), torch.zeros_like(distance, dtype=torch.bool)
            if intra_batch:
                among = squared_distances(query, batch)
                distance, logits = torch.cat([distance, among], 1), torch.cat([logits, -tau_neg * among], 1)
                left_out = torch.cat([left_out, i.unsqueeze(1) == own], 1)
            return _expectation(distance, logits if weighted else None, left_out, detach=False)

        repulsions.append(by_rows(expected, view, own, width=len(queue) + len(own)).mean())
    repulsion = -beta * torch.stack(repulsions).mean()
    return {"loss": attraction + repulsion, "attraction": attraction, "repulsion": repulsion}


def cacr_momentum(
    queries: Sequence[Tensor],
    key: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    cost: str = "rbf",
    reduction: str | None = None,
) -> Tensor:
    """CACR as in MoCo v3 (arXiv 2105.03746, large-scale experiments): one target view, a list of queries.

    With the positives' weights p_i^m = softmax_m(||q_i^m - k_i||^2 / T), constants, of the M queries of sample i:

        rbf:        2T sum_m sum_i p_i^m * cross-entropy( q_i^m . k / T, i )          all keys in the denominator
        euclidean:  sum_m sum_i p_i^m [ (1 - q_i^m.k_i) - sum_{j != i} w_ij (1 - q_i^m.k_j) ],
                    w = softmax_j( -(1 - q_i^m.k_j) / T ), constants

    A method averages over its target views. One query and the rbf cost make MoCo v3's loss, exactly.

    Args:
        queries: one or more unit embeddings (B, D) of the other views (small crops, too), predictor's output.
        key: (B, D) unit embedding of the target view by the momentum copy, gathered; a constant.
        temperature: T, above 0; a divisor here (1.0 for ResNets, 0.2 for ViTs); a tensor of one number gets a gradient.
        cost: ``"rbf"`` or ``"euclidean"``.
        reduction: over i, ``"mean"`` or ``"sum"``; None is the released code's: mean for rbf, sum for Euclidean.

    Raises:
        UserError: (a ``ValueError``) no query, shapes that differ, B < 2, an unknown ``cost`` or ``reduction``.
    """
    check_choice("cost", cost, COSTS)
    check_choice("reduction", reduction or "mean", ("mean", "sum"))
    check_positive(temperature=temperature)
    if not queries:
        raise UserError("no query: give at least one view besides the target's")
    check_views(*queries, key, minimum=2, why=NO_NEGATIVES)
    expect_unit("cacr", *queries, key)
    per_sample = _momentum_costs(_stack_in_float32(queries), key.detach(), temperature, cost)
    return per_sample.mean() if (reduction or ("mean" if cost == "rbf" else "sum")) == "mean" else per_sample.sum()


@in_float32
def _momentum_costs(q: Tensor, key: Tensor, temperature: float | Tensor, cost: str) -> Tensor:
    """sum_m p_i^m times the cost of query m, for every sample: (B,)."""
    with torch.no_grad():
        weights = ((q - key).square().sum(2) / temperature).softmax(0)
    positive, own = torch.einsum("mbd,bd->mb", q, key), torch.arange(len(key), device=key.device)
    if cost == "rbf":
        others = torch.stack([lse_rows(view, key, scale=1 / temperature, exclude=own.unsqueeze(1)) for view in q])
        return 2 * one_number(temperature) * (weights * softplus(others - positive / temperature)).sum(0)

    def expected(query: Tensor, i: Tensor) -> Tensor:
        gap = 1 - query @ key.T
        return _expectation(gap, -gap / temperature, i.unsqueeze(1) == own, detach=True)

    repulsion = torch.stack([by_rows(expected, view, own, width=len(own)) for view in q])
    return (weights * (1 - positive - repulsion)).sum(0)


# ---- what the forms share ------------------------------------------------------------------------------------------
def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """||a_i - b_j||^2 of (N, D) and (M, D) as (N, M), through the dot products."""
    return a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T


def _expectation(value: Tensor, logits: Tensor | None, left_out: Tensor, detach: bool) -> Tensor:
    """Per row, the mean of the values not left out under softmax(logits), or uniform weights; 0 where none is left."""
    nothing = left_out.all(1, keepdim=True)
    logits = _masked(value, logits, left_out, detach).masked_fill(nothing, 0.0)
    return (logits.softmax(1).masked_fill(nothing, 0.0) * value).sum(1)


def _log_expectation(log_value: Tensor, logits: Tensor | None, left_out: Tensor, detach: bool) -> Tensor:
    """Its logarithm, of values given by theirs, so that nothing underflows; no row may be left out altogether."""
    return (_masked(log_value, logits, left_out, detach).log_softmax(1) + log_value).logsumexp(1)


def _masked(value: Tensor, logits: Tensor | None, left_out: Tensor, detach: bool) -> Tensor:
    logits = torch.zeros_like(value) if logits is None else logits
    return (logits.detach() if detach else logits).masked_fill(left_out, -torch.inf)


def _attraction(queries: Tensor, keys: Tensor, tau_pos: float, weighted: bool, detach: bool) -> Tensor:
    """Mean over v and i of the expected distance from q_i^v to k_i^u, u != v; (V, B, D) both."""
    count = len(queries)
    distance = (queries.unsqueeze(1) - keys).square().sum(3)
    own = torch.eye(count, dtype=torch.bool, device=queries.device).repeat_interleave(queries.shape[1], 0)
    flat = distance.transpose(1, 2).reshape(-1, count)
    return _expectation(flat, tau_pos * flat if weighted else None, own, detach).mean()


def _pairs(count: int, symmetric: bool) -> list[tuple[int, int]]:
    return [(v, u) for v in range(count) for u in range(count) if v < u or (symmetric and v != u)]


def _stack_in_float32(views: Sequence[Tensor]) -> Tensor:
    """Views stacked, half precision raised first so that they may be of several types."""
    return torch.stack([v.to(torch.promote_types(v.dtype, torch.float32)) for v in views])


def _check(choice: str, cost: str, tau_pos: float, tau_neg: float) -> None:
    check_choice("choice", choice, CHOICES)
    check_choice("cost", cost, COSTS)
    if not (tau_pos >= 0 and tau_neg >= 0):
        raise UserError(f"tau_pos and tau_neg must be 0 or more, got {tau_pos} and {tau_neg}")
