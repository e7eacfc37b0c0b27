"""SimSiam: predict the projection of the other view, held fixed; and a measure of collapse."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from selftaught.objectives._common import check_choice, check_views, in_float32, mean_cosine, unit

__all__ = ["simsiam", "spread"]


@in_float32
def simsiam(
    p1: Tensor,
    p2: Tensor,
    z1: Tensor,
    z2: Tensor,
    *,
    stop_gradient: bool = True,
    similarity: str = "cosine",
    symmetric: bool = True,
) -> Tensor:
    """SimSiam (Chen and He, CVPR 2021, arXiv 2011.10566, eq. 1-4): predict the other view's projection, held fixed.

        L = D(p1, sg(z2)) / 2 + D(p2, sg(z1)) / 2,      D(p, z) = -mean_n cos(p_n, z_n)

    The *mean* of both directions. (:func:`byol` takes their sum, and the squared distance, four times the slope.)

    Args:
        p1: (N, D) predictions h(z1) of the first view.
        p2: (N, D) predictions h(z2) of the second view.
        z1: (N, D) projections g(f(x1)).
        z2: (N, D) projections g(f(x2)).
        stop_gradient: hold the projections fixed; off is the paper's ablation, which collapses.
        similarity: ``"cosine"``, or ``"cross-entropy"``: D(p, z) = -mean_n sum_d softmax(z)_d log softmax(p)_d
            (section 4.5), without normalisation.
        symmetric: both directions; off keeps D(p1, sg(z2)) alone, without the half.

    Returns:
        A scalar: in [-1, 1] for the cosine, where identical views have -1; >= 0 for the cross-entropy.

    Raises:
        UserError: (a ``ValueError``) shapes differ or aren't (N, D), an empty batch, an unknown ``similarity``.
    """
    check_choice("similarity", similarity, ("cosine", "cross-entropy"))
    check_views(p1, p2, z1, z2)
    if stop_gradient:
        z1, z2 = z1.detach(), z2.detach()

    def distance(p: Tensor, z: Tensor) -> Tensor:
        return -mean_cosine(p, z) if similarity == "cosine" else F.cross_entropy(p, z.softmax(1))

    return (distance(p1, z2) + distance(p2, z1)) / 2 if symmetric else distance(p1, z2)


@in_float32
def spread(z: Tensor) -> Tensor:
    """How far embeddings are from collapse: sqrt(D) times the mean deviation of the features of z / ||z||.

    1 where the directions are spread evenly, 0 where all rows point the same way (arXiv 2011.10566, section 4.1, there
    without the factor). The variance has the divisor N.

    Args:
        z: (N, D) embeddings; normalised here.

    Returns:
        A scalar in [0, 1], without gradient.

    Raises:
        UserError: (a ``ValueError``) not (N, D), an empty batch.
    """
    _, width = check_views(z)
    return math.sqrt(width) * unit(z.detach()).var(0, correction=0).sqrt().mean()
