"""GroCo: positives sorted above the hardest negatives (Shvetsova et al. 2023, arXiv 2301.02009), and baselines."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_positive, check_views, in_float32, softplus, unit
from selftaught.objectives._sorting import group_probability, relaxed_sort, sorting_network
from selftaught.objectives._tiled import lse_rows

__all__ = ["groco", "group_probability", "nt_xent_pairs", "relaxed_sort", "sorting_network"]

TILE = 1024
"""Anchors whose similarities to the whole batch are held at a time."""


@in_float32
def groco(
    z1: Tensor,
    z2: Tensor,
    *others: Tensor,
    n_pos_augs: int | None = None,
    topk_neg: int = 10,
    steepness: float = 1.0,
    relaxation: str = "cauchy",
    network: str = "odd_even",
    stop_grad: bool = True,
    pre_order: bool = True,
) -> Tensor:
    """Group ordering constraints (Shvetsova et al., ICCV 2023, arXiv 2301.02009): no temperature, no softmax.

    For anchor i of view a: its positives cos(z^a_i, z^p_i) in the other of the first ``n_pos_augs`` views p, m of them,
    and its negatives cos(z^a_i, z^a_j), j != i, of the *same* view, the k = ``topk_neg`` largest. They go, negatives
    first, both groups ascending, through a relaxed sorting network (:func:`relaxed_sort`) with n = k + m wires. With
    r_i the relaxed probability of entry i to end among the m upper ranks and t_i = 1 for positives, else 0:

        loss = mean over views a, anchors and entries of  -t_i log r_i - (1 - t_i) log(1 - r_i)

    The order within a group doesn't matter. For k = m = 1 it is -log(1/2 + atan(steepness (pos - neg)) / pi).

    Args:
        z1: (B, D) projections of the first view, not normalised (the cosine is in here). With several processes:
            gathered.
        z2: (B, D) projections of the second view.
        *others: further views (B, D).
        n_pos_augs: the first so many views serve as positives (large crops), all are anchors; None (default): all.
        topk_neg: hardest negatives per anchor, k.
        steepness: of the relaxed swaps.
        relaxation: ``"cauchy"``, ``"logistic"``, ``"reciprocal"`` or ``"optimal"``.
        network: ``"odd_even"`` or ``"bitonic"``.
        stop_grad: only the anchor of a pair gets a gradient (the method); off: both sides.
        pre_order: sort both groups before the network; off: negatives in the order of the batch, positives in that of
            the views.

    Returns:
        A scalar >= 0.

    Raises:
        UserError: (a ``ValueError``) fewer than ``topk_neg`` + 1 samples, ``n_pos_augs`` below 2 or above the number of
            views, shapes that differ, an unknown network or relaxation.
    """
    z, first = _unit_views((z1, z2, *others), n_pos_augs, topk_neg)
    keys = z.detach() if stop_grad else z
    negatives = _hardest_of_own_view(z, keys, topk_neg, pre_order)
    total = z.new_zeros(())
    for anchors, positives in _positives(z, keys, first):
        ordered = positives.sort(2).values if pre_order else positives
        scores = torch.cat([negatives[anchors], ordered], 2)
        upper = group_probability(scores, topk_neg, network=network, relaxation=relaxation, steepness=steepness)
        is_positive = torch.arange(scores.shape[2], device=z.device) >= topk_neg
        total = total + len(positives) * _cross_entropy(torch.where(is_positive, upper, 1 - upper))
    return total / len(z)


@in_float32
def nt_xent_pairs(
    z1: Tensor,
    z2: Tensor,
    *others: Tensor,
    temperature: float | Tensor = 0.1,
    n_pos_augs: int | None = None,
    topk_neg: int | None = None,
    stop_grad: bool = False,
) -> Tensor:
    """GroCo's baselines (arXiv 2301.02009): NT-Xent over all pairs of views, also against the hardest negatives only.

    For the pairs (p, v) of a positive view p and a later view v, with s = cos / temperature and every anchor i of both:

        -log( exp(s+_i) / (exp(s+_i) + sum_n exp(s_in)) ),    n: all views of all other samples, or the largest of them

    the mean over anchors and pairs. Of two views, with all negatives, that is :func:`~selftaught.objectives.simclr`.

    Args:
        z1: (B, D) projections of the first view, not normalised.
        z2: (B, D) projections of the second view.
        *others: further views (B, D).
        temperature: above 0; a tensor of one number gets a gradient.
        n_pos_augs: the first so many views serve as positives, as in :func:`groco`; None: all.
        topk_neg: keep so many hardest negatives; None: all of them.
        stop_grad: only the anchor gets a gradient.

    Returns:
        A scalar >= 0.

    Raises:
        UserError: (a ``ValueError``) one sample alone, less than ``topk_neg`` negatives, ``n_pos_augs`` out of range,
            shapes that differ, a temperature that isn't above 0.
    """
    views = (z1, z2, *others)
    check_positive(temperature=temperature)
    z, first = _unit_views(views, n_pos_augs, 1 if topk_neg is None else -(-topk_neg // len(views)))
    keys = z.detach() if stop_grad else z
    count, rows, _ = z.shape
    everyone, keys = z.flatten(0, 1), keys.flatten(0, 1)
    here = torch.arange(count * rows, device=z.device)
    own = here.unsqueeze(1) % rows + rows * torch.arange(count, device=z.device)
    if topk_neg is None:
        below = lse_rows(everyone, keys, scale=1 / temperature, exclude=own, bound=1 / temperature)
    else:
        below = (_largest(everyone, keys, own, topk_neg) / temperature).logsumexp(1)
    positive = torch.einsum("abd,pbd->apb", z, keys.view_as(z)) / temperature
    losses = softplus(below.view(count, 1, rows) - positive).mean(2)
    pairs = torch.ones_like(losses, dtype=torch.bool).triu(1)
    pairs[first:] = False
    return (losses + losses.T)[pairs].mean() / 2


def _cross_entropy(right: Tensor) -> Tensor:
    """Mean of -log of the probabilities to end in the right group; at most 100 each, as torch's own has it.

    That one refuses NaN, on a GPU by an assertion that takes the process down.
    """
    right = right.clamp(0, 1)
    return torch.where(right == 0, 100.0, -right.clamp(min=torch.finfo(right.dtype).tiny).log()).mean()


def _unit_views(views: tuple[Tensor, ...], n_pos_augs: int | None, negatives: int) -> tuple[Tensor, int]:
    """The views as one (V, B, D) of unit vectors, and how many of them are positives."""
    first = len(views) if n_pos_augs is None else n_pos_augs
    if not 2 <= first <= len(views):
        raise UserError(f"n_pos_augs={first} of {len(views)} views: give 2 or more, at most the number of views")
    if negatives < 1:
        raise UserError(f"topk_neg must be 1 or more, got {negatives}")
    check_views(
        *views, minimum=negatives + 1, why=f" for {negatives} negatives; raise the batch size or lower topk_neg"
    )
    return unit(torch.stack(views)), first


def _positives(z: Tensor, keys: Tensor, first: int) -> Iterator[tuple[slice, Tensor]]:
    """Similarities (v, B, m) to the positives, once for the large crops (m = first - 1), once for the others."""
    large = torch.einsum("abd,pbd->abp", z[:first], keys[:first])
    partners = torch.tensor([[p for p in range(first) if p != a] for a in range(first)], device=z.device)
    yield slice(0, first), large.gather(2, partners.unsqueeze(1).expand(-1, large.shape[1], -1))
    if first < len(z):
        yield slice(first, len(z)), torch.einsum("abd,pbd->abp", z[first:], keys[:first])


def _hardest_of_own_view(z: Tensor, keys: Tensor, k: int, ascending: bool) -> Tensor:
    """(V, B, k): similarities to the k nearest others of the anchor's own view, ascending or as in the batch."""
    own = torch.arange(z.shape[1], device=z.device).unsqueeze(1)
    return torch.stack([_largest(a, b, own, k, ascending=ascending) for a, b in zip(z, keys, strict=True)])


def _largest(queries: Tensor, keys: Tensor, exclude: Tensor, k: int, *, ascending: bool = True) -> Tensor:
    """(N, k): the k largest similarities of each query to the keys not excluded (N, e), tile by tile of queries."""
    found = []
    for rows in torch.arange(len(queries), device=queries.device).split(TILE):
        similarity = (queries[rows] @ keys.T).scatter(1, exclude[rows], -torch.inf)
        values, where = similarity.topk(k)
        found.append(values.flip(1) if ascending else similarity.gather(1, where.sort(1).values))
    return torch.cat(found)
