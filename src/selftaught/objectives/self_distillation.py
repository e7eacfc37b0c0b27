"""Self-distillation without negatives: BYOL and SimSiam, which predict one view's projection from the other's."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from selftaught.objectives._common import check_choice, check_views, in_float32, unit


@in_float32
def byol(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, *, symmetric: bool = True) -> Tensor:
    """BYOL (Grill et al., NeurIPS 2020, arXiv 2006.07733, eq. 2): predict the momentum copy of the other view.

        L = [2 - 2 mean_n cos(p1_n, sg(z2_n))] + [2 - 2 mean_n cos(p2_n, sg(z1_n))]

    The *sum* of both directions, each the squared distance of unit vectors. (:func:`simsiam` takes their mean.)

    Args:
        p1: (N, D) predictions q(g(f(x1))) of the online network from the first view. Normalised here.
        p2: (N, D) predictions from the second view.
        z1: (N, D) projections of the first view by the momentum copy. Normalised here; no gradient flows into them.
        z2: (N, D) projections of the second view by the momentum copy.
        symmetric: both directions; off keeps only that from p1 to z2.

    Returns:
        A scalar in [0, 8] ([0, 4] when not symmetric). 0: all predictions right; 8: all opposite.

    Raises:
        UserError: (a ``ValueError``) shapes differ or aren't (N, D), an empty batch.
    """
    check_views(p1, p2, z1, z2)
    loss = 2 - 2 * _cosine(p1, z2.detach())
    return loss + 2 - 2 * _cosine(p2, z1.detach()) if symmetric else loss


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
        return -_cosine(p, z) if similarity == "cosine" else F.cross_entropy(p, z.softmax(1))

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


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean cosine of the rows of two (N, D) matrices."""
    return (unit(a) * unit(b)).sum(1).mean()
