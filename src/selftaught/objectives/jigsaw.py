"""Jigsaw puzzles: in which of a set of orders do the tiles lie?"""

from __future__ import annotations

from torch import Tensor

from selftaught.objectives.supervised import supervised

__all__ = ["jigsaw"]


def jigsaw(logits: Tensor, labels: Tensor) -> Tensor:
    """Jigsaw puzzles (Noroozi and Favaro, ECCV 2016, arXiv 1603.09246): the cross-entropy of the permutation.

        L = -1/N sum_n log softmax(F(tiles of x_n in the order sigma_y))_y,     y one of P permutations

    Args:
        logits: (N, P).
        labels: (N,) int64, the number y of each image's permutation.

    Returns:
        A scalar >= 0; log P for equal logits.

    Raises:
        UserError: (a ``ValueError``) shapes or labels that don't fit.
    """
    return supervised(logits, labels)
