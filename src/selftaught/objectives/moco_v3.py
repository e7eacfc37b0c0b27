"""MoCo v3: momentum contrast within the batch, without a queue. Keys are constants."""

from __future__ import annotations

from torch import Tensor

from selftaught.objectives._common import check_views, in_float32, one_number
from selftaught.objectives._queue import batch_infonce

__all__ = ["moco_v3"]


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
