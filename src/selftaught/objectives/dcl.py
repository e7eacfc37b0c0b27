"""Decoupled contrastive learning (DCL, DCLW), and its baseline InfoNCE. Memory is linear in the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.objectives._common import (
    NO_NEGATIVES,
    check_choice,
    check_positive,
    check_views,
    expect_unit,
    in_float32,
    softplus,
)
from selftaught.objectives._tiled import lse_rows, lse_rows_and_columns, lse_self

__all__ = ["dcl", "dcl_coupling", "dcl_per_anchor", "dclw_weights", "infonce"]


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
    """Decoupled contrastive learning (Yeh et al., ECCV 2022, arXiv 2110.06848, eq. 5-6).

    The positive is left out of the denominator.

    For the anchor i of view k, with s_i = <z_i^1, z_i^2>:

        L_i^k = -w_i s_i / temperature + log U_{i,k}
        U_{i,k} = sum_{l in {1,2}} sum_{j != i} exp(<z_i^k, z_j^l> / temperature)
        w_i = 1 (DCL),  or with ``sigma``  w_i = 2 - exp(s_i/sigma) / mean_m exp(s_m/sigma)  (DCLW)

    Reduced as in the usual implementations: the mean over i, the *sum* of the two directions.

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
