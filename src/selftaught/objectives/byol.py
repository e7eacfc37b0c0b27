"""BYOL: predict the momentum copy's projection of the other view."""

from __future__ import annotations

from torch import Tensor

from selftaught.objectives._common import check_views, in_float32, mean_cosine

__all__ = ["byol"]


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
    loss = 2 - 2 * mean_cosine(p1, z2.detach())
    return loss + 2 - 2 * mean_cosine(p2, z1.detach()) if symmetric else loss
