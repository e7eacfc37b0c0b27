"""SimCLR: NT-Xent of two views and of more. Memory is linear in the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.objectives._common import check_positive, check_views, in_float32, softplus, unit
from selftaught.objectives._tiled import lse_self

__all__ = ["simclr"]


@in_float32
def simclr(z1: Tensor, z2: Tensor, *others: Tensor, temperature: float | Tensor = 0.2) -> Tensor:
    """NT-Xent, the loss of SimCLR (Chen et al. 2020, arXiv 2002.05709, eq. 1).

    With Z the L2-normalised rows of all views and s_ij = <Z_i, Z_j> / temperature, the mean over the anchors i of

        -log( sum_{p positive of i} exp(s_ip) / sum_{j != i} exp(s_ij) )

    For two views that is one positive among 2N - 1 terms. For more views the positives are summed inside the log.

    Args:
        z1: (N, D) projections of the first view; row i belongs to the same sample in all views. Normalised here.
        z2: (N, D) projections of the second view.
        *others: further views (N, D).
        temperature: above 0; a tensor of one number gets a gradient.

    Returns:
        A scalar >= 0, exact near 0. A batch of one sample has no negatives: the loss and its gradient are 0.
        All projections equal: log(2N - 1).

    Raises:
        UserError: (a ``ValueError``) shapes differ or aren't (N, D), an empty batch, a temperature that isn't above 0.
    """
    views = (z1, z2, *others)
    check_views(*views, minimum=1)
    check_positive(temperature=temperature)
    return nt_xent(unit(torch.stack(views)), temperature)


def nt_xent(z: Tensor, temperature: float | Tensor) -> Tensor:
    """:func:`simclr` of views (V, N, D) whose rows are unit vectors already."""
    count, rows, _ = z.shape
    own = torch.arange(count * rows, device=z.device).unsqueeze(1) % rows
    exclude = own + rows * torch.arange(count, device=z.device)
    negatives = lse_self(z.flatten(0, 1), scale=1 / temperature, exclude=exclude, bound=1 / temperature)
    if count == 2:
        positive = ((z[0] * z[1]).sum(1) / temperature).repeat(2)
    else:
        itself = torch.eye(count, dtype=torch.bool, device=z.device)
        similarity = torch.einsum("vnd,und->vnu", z, z) / temperature
        positive = similarity.masked_fill(itself.unsqueeze(1), -torch.inf).logsumexp(2).flatten()
    return softplus(negatives - positive).mean()
