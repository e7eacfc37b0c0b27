"""NNCLR: the positive of a view is its nearest neighbour among past embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_views, in_float32, unit
from selftaught.objectives._queue import CHUNK, batch_infonce

__all__ = ["nearest", "nnclr"]


@in_float32
def nnclr(
    p1: Tensor,
    p2: Tensor,
    nn1: Tensor,
    nn2: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    symmetric: bool = True,
    include_positive: bool = True,
) -> Tensor:
    """NNCLR (Dwibedi et al., ICCV 2021, arXiv 2104.14548, eq. 3): a view's neighbours attract the other's predictions.

        L = 1/2 ( l(nn1, p2) + l(nn2, p1) ),   l(n, p) = mean_i -log( exp(n_i.p_i / t) / sum_j exp(n_i.p_j / t) )

    With ``include_positive=False`` the sum is over j != i: NNCLR + DCL (arXiv 2110.06848).

    Args:
        p1: (N, D) predictions of the first view. All inputs are normalised here.
        p2: (N, D) predictions of the second view.
        nn1: (N, D) what :func:`nearest` finds for the projections of the first view; constants.
        nn2: (N, D) what it finds for those of the second view.
        temperature: t, above 0; a tensor of one number gets a gradient.
        symmetric: the mean of both directions; off is l(nn1, p2) alone.
        include_positive: the positive's own term in the denominator.

    Returns:
        A scalar, >= 0 with the positive included. All rows equal: log N.

    Raises:
        UserError: (a ``ValueError``) shapes differ or aren't (N, D), one sample without ``include_positive`` (no
            negatives), a temperature that isn't above 0.
    """
    check_views(p1, p2, nn1, nn2)
    loss = batch_infonce(nn1.detach(), p2, temperature, include_positive=include_positive)
    if not symmetric:
        return loss
    return (loss + batch_infonce(nn2.detach(), p1, temperature, include_positive=include_positive)) / 2


@in_float32
@torch.no_grad()
def nearest(z: Tensor, queue: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The row of the queue with the highest cosine similarity to each row of z.

    A part of the queue at a time: memory is linear in N + K (without the mask).

    Args:
        z: (N, D) projections, of any length.
        queue: (K, D) unit vectors.
        mask: (N, K) bool, True where an entry mustn't be chosen (the same image); a row that is all True takes the
            first entry.

    Returns:
        Neighbours (N, D) without gradient, and their positions in the queue (N,) int64. Of equals the first.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, or an empty queue.
    """
    if z.dim() != 2 or queue.dim() != 2 or z.shape[1] != queue.shape[1] or not len(queue):
        raise UserError(
            f"nearest needs (N, D) and a queue (K, D) that isn't empty, got {tuple(z.shape)} and {tuple(queue.shape)}"
        )
    check_floats(z=z, queue=queue)
    if mask is not None and (mask.shape != (len(z), len(queue)) or mask.dtype != torch.bool):
        raise UserError(
            f"mask must have the shape ({len(z)}, {len(queue)}), bool, got {tuple(mask.shape)} {mask.dtype}"
        )
    query = unit(z)
    best = z.new_full((len(z),), -math.inf)
    index = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    step = max(1, CHUNK // max(1, len(z)))
    for start in range(0, len(queue), step):
        part = query @ queue[start : start + step].T
        if mask is not None:
            part = part.masked_fill(mask[:, start : start + step], -math.inf)
        value, at = part.max(1)
        index = torch.where(value > best, at + start, index)
        best = torch.maximum(best, value)
    return queue[index], index
