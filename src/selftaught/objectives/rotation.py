"""Rotation prediction: which way up is the image?"""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import in_float32
from selftaught.objectives.supervised import supervised

__all__ = ["rotation"]


@in_float32
def rotation(logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """RotNet (Gidaris et al., ICLR 2018, arXiv 1803.07728, eq. 2 and 3): the cross-entropy of the turn.

        L = -1/(B K) sum_b sum_y log softmax(F(g(x_b | y)))_y

    Args:
        logits: (B K, K) of the K turned copies of B images; K = 4 quarter turns in the paper.
        labels: (B K,) int64, the turn y of each row; None: interleaved copies, row b K + y is image b turned by y.

    Returns:
        A scalar >= 0; log K for equal logits.

    Raises:
        UserError: (a ``ValueError``) shapes or labels that don't fit, without labels a number of rows that isn't a
            multiple of K.
    """
    if labels is None:
        if logits.dim() != 2 or logits.shape[1] < 2 or len(logits) % logits.shape[1]:
            raise UserError(f"need logits (B K, K) of K interleaved copies, got {tuple(logits.shape)}")
        turns = logits.shape[1]
        labels = torch.arange(turns, device=logits.device).repeat(len(logits) // turns)
    return supervised(logits, labels)
