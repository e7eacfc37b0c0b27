"""Momentum contrast: MoCo v2 against a queue of past keys, MoCo v3 within the batch.

A query q belongs to the key k that a slowly moving copy of the network makes of another view. Keys are constants: no
gradient reaches k or the queue.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import (
    check_positive,
    check_views,
    expect_unit,
    in_float32,
    one_number,
    softplus,
    unit,
)
from selftaught.objectives._tiled import lse_rows, lse_self

CHUNK = 2**22
"""Numbers that a chunk of gathered queue rows, or of similarities that need no gradient, may hold."""


@in_float32
def moco_v2(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.2,
    include_positive: bool = True,
    mask: Tensor | None = None,
) -> Tensor:
    """MoCo's InfoNCE against a queue (He et al. 2020, arXiv 1911.05722, eq. 1; v2: Chen et al. 2020, 2003.04297).

        L = mean_i -log( exp(q_i.k_i / t) / ( exp(q_i.k_i / t) + sum_{n in queue} exp(q_i.n / t) ) )

    With ``include_positive=False`` the first term below the line is left out: MoCo + DCL (arXiv 2110.06848).
    Memory is linear in B + K, except with a ``mask``: then B x K similarities are held.

    Args:
        q: (B, D) queries, **unit vectors already**: nothing is normalised here.
        k: (B, D) keys of the same samples, unit vectors; a constant.
        queue: (K, D) past keys, unit vectors; a constant. Push the new keys after the loss, and hand over a copy if
            that happens before the backward pass.
        temperature: t, above 0; a tensor of one number gets a gradient.
        include_positive: the positive's own term in the denominator.
        mask: (B, K) bool, True where a queue entry is no negative of the query (the same image, the same class).

    Returns:
        A scalar, >= 0 with the positive included. A query whose negatives are all masked adds 0. All rows of q, k and
        queue equal: log(1 + K).

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, an empty queue, a temperature that isn't above 0.
    """
    check_queue(q, k, queue, mask)
    check_positive(temperature=temperature)
    expect_unit("moco_v2", q, k, queue)
    positive, queue = (q * k.detach()).sum(1) / temperature, queue.detach()
    if mask is None:
        negatives = lse_rows(q, queue, scale=1 / temperature)
    else:
        negatives = (q @ queue.T / temperature).masked_fill(mask, -math.inf).logsumexp(1)
    return contrast(positive, negatives, include_positive)


@in_float32
def moco_v2_terms(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.2,
    include_positive: bool = True,
    mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """:func:`moco_v2` as ``loss``, with the diagnostics of MoCHi's paper (none of them has a gradient).

    ``proxy_accuracy``: share of queries whose key scores above all their negatives; ``alignment``: mean ||q - k||^2;
    ``uniformity``: log mean_{i != j} exp(-2 ||q_i - q_j||^2) over the queries (0 for a batch of one).
    """
    loss = moco_v2(q, k, queue, temperature=temperature, include_positive=include_positive, mask=mask)
    return {"loss": loss, **diagnostics(q, k, _hardest(q, queue, mask))}


@in_float32
def moco_v3(
    q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, *, temperature: float | Tensor = 0.2, symmetric: bool = True
) -> Tensor:
    """MoCo v3 (Chen et al., ICCV 2021, arXiv 2104.02057, eq. 1, algorithm 1): keys of the batch, no queue.

        L = l(q1, k2) + l(q2, k1),    l(q, k) = 2 t mean_i -log( exp(q_i.k_i / t) / sum_j exp(q_i.k_j / t) )

    Args:
        q1: (N, D) predictions of the first view; normalised here, as all are.
        q2: (N, D) predictions of the second view.
        k1: (N, D) momentum projections of the first view, all processes' rows; constants.
        k2: (N, D) momentum projections of the second view.
        temperature: t, above 0 (the paper: 0.2 for transformers, 1 for ResNet-50); a tensor gets a gradient.
        symmetric: both directions; off keeps only l(q1, k2).

    Returns:
        A scalar >= 0: the *sum* of the directions. All rows equal: 4 t log N (2 t log N when not symmetric).

    Raises:
        UserError: (a ``ValueError``) shapes differ or aren't (N, D), a temperature that isn't above 0.
    """
    check_views(q1, q2, k1, k2)
    loss = batch_infonce(q1, k2.detach(), temperature)
    return 2 * one_number(temperature) * (loss + batch_infonce(q2, k1.detach(), temperature) if symmetric else loss)


def batch_infonce(a: Tensor, b: Tensor, temperature: float | Tensor, *, include_positive: bool = True) -> Tensor:
    """Mean over i of -log( exp(a_i.b_i/t) / sum_j exp(a_i.b_j/t) ) of the normalised rows of a and b, both (N, D).

    Without ``include_positive`` the sum is over j != i, which needs two rows.
    """
    why = "" if include_positive else " (one sample has no negatives); raise the batch size"
    rows, _ = check_views(a, b, minimum=1 if include_positive else 2, why=why)
    check_positive(temperature=temperature)
    a, b, scale = unit(a), unit(b), 1 / temperature
    own = torch.arange(rows, device=a.device).unsqueeze(1)
    negatives = lse_rows(a, b, scale=scale, exclude=own, bound=scale)
    return contrast((a * b).sum(1) * scale, negatives, include_positive)


def contrast(positive: Tensor, negatives: Tensor, include_positive: bool) -> Tensor:
    """Mean of -log of the positive's share; a row without negatives (log-sum -inf) adds 0 either way."""
    if include_positive:
        return softplus(negatives - positive).mean()
    return torch.where(negatives.isneginf(), 0.0, negatives - positive).mean()


@torch.no_grad()
def _hardest(q: Tensor, queue: Tensor, mask: Tensor | None) -> Tensor:
    """The highest similarity of each query to its negatives (B,), -inf without one; a part of the queue at a time."""
    step = max(1, CHUNK // max(1, len(q)))
    highest = q.new_full((len(q),), -math.inf)
    for start in range(0, len(queue), step):
        part = q @ queue[start : start + step].T
        if mask is not None:
            part = part.masked_fill(mask[:, start : start + step], -math.inf)
        highest = torch.maximum(highest, part.amax(1))
    return highest


@torch.no_grad()
def diagnostics(q: Tensor, k: Tensor, hardest: Tensor) -> dict[str, Tensor]:
    """Proxy-task accuracy, alignment and uniformity of unit queries and keys, given the hardest negatives' scores."""
    rows = len(q)
    found = {
        "proxy_accuracy": ((q * k).sum(1) > hardest).to(q.dtype).mean(),
        "alignment": (q - k).square().sum(1).mean(),
        "uniformity": q.new_zeros(()),
    }
    if rows > 1:  # exp(-2 ||a - b||^2) = exp(4 a.b - 4) for unit vectors
        itself = torch.arange(rows, device=q.device).unsqueeze(1)
        total = lse_self(q, scale=4.0, exclude=itself).logsumexp(0)
        found["uniformity"] = total - 4 - math.log(rows * (rows - 1))
    return found


def check_queue(q: Tensor, k: Tensor, queue: Tensor, mask: Tensor | None) -> None:
    """Refuse queries and keys (B, D), a queue (K, D) and a mask (B, K) that don't fit together."""
    rows, width = check_views(q, k)
    if queue.dim() != 2 or queue.shape[1] != width or not len(queue):
        raise UserError(f"the queue needs the shape (entries, {width}) with 1 entry or more, got {tuple(queue.shape)}")
    if mask is not None and (mask.shape != (rows, len(queue)) or mask.dtype != torch.bool):
        raise UserError(f"mask must be bool of shape ({rows}, {len(queue)}), got {mask.dtype} {tuple(mask.shape)}")
