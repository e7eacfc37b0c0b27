"""Context prediction: on which side of a tile does its neighbour lie?"""

from __future__ import annotations

from torch import Tensor

from selftaught.objectives.supervised import supervised

__all__ = ["relative_position"]


def relative_position(logits: Tensor, labels: Tensor) -> Tensor:
    """Context prediction (Doersch et al., ICCV 2015, arXiv 1505.05192): the cross-entropy of the side.

        L = -1/N sum_n log softmax(F(middle tile of x_n, its neighbour y))_y,     y in 0 ... 7

    Args:
        logits: (N, 8), places row by row without the middle: upper left, above, upper right, left, right, lower left,
            below, lower right.
        labels: (N,) int64.

    Returns:
        A scalar >= 0; log 8 for equal logits.

    Raises:
        UserError: (a ``ValueError``) shapes or labels that don't fit.
    """
    return supervised(logits, labels)
