"""Contrastive objectives of two views: SimCLR's NT-Xent, InfoNCE, and decoupled contrastive learning (DCL, DCLW).

All go through the tiled log-sum-exp, so their memory is linear in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.objectives._common import (
    check_choice,
    check_positive,
    check_views,
    expect_unit,
    in_float32,
    softplus,
    unit,
)
from selftaught.objectives._tiled import lse_rows, lse_rows_and_columns, lse_self

NO_NEGATIVES = " (one sample has no negatives); raise the batch size"


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
    count, (rows, _) = len(views), check_views(*views, minimum=1)
    check_positive(temperature=temperature)
    z = unit(torch.stack(views))
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


@in_float32
def dcl(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    sigma: float | None = None,
    detach_weight: bool = False,
    symmetric: bool = True,
    negatives: str = "both_views",
    include_positive: bool = False,
) -> Tensor:
    """Decoupled contrastive learning (Yeh et al., ECCV 2022, arXiv 2110.06848, eq. 5-6): no positive below the line.

    For the anchor i of view k, with s_i = <z_i^1, z_i^2>:

        L_i^k = -w_i s_i / temperature + log U_{i,k}
        U_{i,k} = sum_{l in {1,2}} sum_{j != i} exp(<z_i^k, z_j^l> / temperature)
        w_i = 1 (DCL),  or with ``sigma``  w_i = 2 - exp(s_i/sigma) / mean_m exp(s_m/sigma)  (DCLW)

    Reduced as in the field's code: the mean over i, the *sum* of the two directions.

    Args:
        z1: (B, D) projections of the first view, **unit vectors already**: nothing is normalised here, and a warning
            says so where their length isn't 1.
        z2: (B, D) projections of the second view, unit vectors; row i is the positive of row i of ``z1``.
        temperature: above 0; a tensor of one number gets a gradient.
        sigma: None is DCL; a number (paper: 0.5) is DCLW. Weights may be negative and aren't clamped.
        detach_weight: treat w as a constant. Default off: the gradient flows through the weights.
        symmetric: both directions; off keeps only the anchors of ``z1``.
        negatives: ``"both_views"`` (2(B-1) of them) or ``"cross_view_only"`` (B-1).
        include_positive: put the positive back into the sum, which makes it InfoNCE.

    Returns:
        A scalar, often negative: DCL of both views, symmetric, is at least 2 (log(2(B-1)) - B / ((B-1) temperature)),
        which both views equal and their rows a regular simplex reach. Don't clamp it.

    Raises:
        UserError: (a ``ValueError``) B < 2 (no negatives), shapes differ, unknown ``negatives``, a temperature or sigma
            that isn't above 0.
    """
    losses = dcl_per_anchor(
        z1, z2, temperature=temperature, sigma=sigma, detach_weight=detach_weight, symmetric=symmetric,
        negatives=negatives, include_positive=include_positive,
    )  # fmt: skip
    return losses.mean(1).sum()


@in_float32
def infonce(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    symmetric: bool = True,
    negatives: str = "both_views",
) -> Tensor:
    """InfoNCE with DCL's reduction: the baseline of :func:`dcl`, the same path with the positive put back.

    On unit vectors it is twice :func:`simclr` (sum of two directions against the mean over 2B anchors).
    Arguments, result and errors as in :func:`dcl`; nothing is normalised here either.
    """
    return dcl(z1, z2, temperature=temperature, symmetric=symmetric, negatives=negatives, include_positive=True)


@in_float32
def dcl_per_anchor(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    sigma: float | None = None,
    detach_weight: bool = False,
    symmetric: bool = True,
    negatives: str = "both_views",
    include_positive: bool = False,
) -> Tensor:
    """The losses L_i^k of :func:`dcl` before any reduction: (2, B), or (1, B) when not ``symmetric``."""
    negative = _log_negatives(z1, z2, temperature, negatives, symmetric)
    positive = (z1 * z2).sum(1) / temperature
    weighted = positive
    if sigma is not None:
        weights = dclw_weights(z1, z2, sigma=sigma)
        weighted = positive * (weights.detach() if detach_weight else weights)
    if include_positive:
        return softplus(negative - positive) + (positive - weighted)
    return negative - weighted


@in_float32
def dclw_weights(z1: Tensor, z2: Tensor, *, sigma: float = 0.5) -> Tensor:
    """The weights w_i of DCLW (arXiv 2110.06848, eq. 6): (B,), with mean 1, as low as 2 - B.

    Args:
        z1: (B, D) unit vectors.
        z2: (B, D) unit vectors.
        sigma: width of the softmax over the positives of the batch, above 0. Infinite: all weights 1.
    """
    rows, _ = check_views(z1, z2)
    check_positive(sigma=sigma)
    return 2 - rows * ((z1 * z2).sum(1) / sigma).softmax(0)


@in_float32
def dcl_coupling(z1: Tensor, z2: Tensor, *, temperature: float | Tensor = 0.1, negatives: str = "both_views") -> Tensor:
    """The negative-positive coupling q_i of the anchors in ``z1`` (arXiv 2110.06848, proposition 1): (B,) in (0, 1).

        q_i = U_i / (exp(s_i / temperature) + U_i)

    InfoNCE's gradient is q_i times DCL's; near 0 (easy positive, small batch) InfoNCE hardly learns from the anchor.
    Arguments as in :func:`dcl`.
    """
    negative = _log_negatives(z1, z2, temperature, negatives, symmetric=False)
    return torch.sigmoid(negative[0] - (z1 * z2).sum(1) / temperature)


def _log_negatives(z1: Tensor, z2: Tensor, temperature: float | Tensor, negatives: str, symmetric: bool) -> Tensor:
    """Log U of each anchor, (2, B) or (1, B); never with the positive's own term."""
    check_choice("negatives", negatives, ("both_views", "cross_view_only"))
    check_positive(temperature=temperature)
    rows, _ = check_views(z1, z2, minimum=2, why=NO_NEGATIVES)
    expect_unit("dcl", z1, z2)
    scale, here = 1 / temperature, torch.arange(rows, device=z1.device).unsqueeze(1)
    if negatives == "cross_view_only":
        if symmetric:
            return torch.stack(lse_rows_and_columns(z1, z2, scale=scale, exclude=here))
        return lse_rows(z1, z2, scale=scale, exclude=here).unsqueeze(0)
    both, own = torch.cat([z1, z2]), torch.cat([here, here + rows], 1)
    if not symmetric:
        return lse_rows(z1, both, scale=scale, exclude=own).unsqueeze(0)
    return lse_self(both, scale=scale, exclude=own.repeat(2, 1)).view(2, rows)
