"""MoCo v2: contrast against a queue of past keys.

A query q belongs to the key k that a slowly moving copy of the network makes of another view. Keys are constants: no
gradient reaches k or the queue.
"""

from __future__ import annotations

import math

from torch import Tensor

from selftaught.objectives._common import check_positive, expect_unit, in_float32
from selftaught.objectives._queue import check_queue, contrast, diagnostics, hardest
from selftaught.objectives._tiled import lse_rows

__all__ = ["moco_v2", "moco_v2_terms"]


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

    With ``include_positive=False`` the positive's term in the denominator is left out: MoCo + DCL (arXiv 2110.06848).
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
    return {"loss": loss, **diagnostics(q, k, hardest(q, queue, mask))}
