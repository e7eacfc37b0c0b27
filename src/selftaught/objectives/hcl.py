"""Contrast with debiased and with hard negatives (HCL): baselines of CACR and iSogCLR."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import NO_NEGATIVES, check_positive, check_views, expect_unit, in_float32, softplus
from selftaught.objectives._tiled import lse_self

__all__ = ["hcl"]


@in_float32
def hcl(
    z1: Tensor, z2: Tensor, *, temperature: float | Tensor = 0.5, tau_plus: float = 0.1, beta: float = 1.0
) -> Tensor:
    """Contrastive learning with hard negatives (Robinson et al., ICLR 2021, arXiv 2010.04592, eq. 4-6).

    For an anchor with positive p = exp(s+/T) and the M = 2B - 2 similarities s_j to both views of the other samples:

        R = M sum_j exp(s_j (1 + beta) / T) / sum_j exp(s_j beta / T)          negatives weighed by hardness
        G = max( (R - tau_plus M p) / (1 - tau_plus),  M exp(-1/T) )           less what is expected of the own class
        loss = mean over the 2B anchors of log(1 + G / p)

    ``beta=0`` is debiased contrastive learning (Chuang et al., NeurIPS 2020, arXiv 2007.00224); ``tau_plus=0`` besides
    is :func:`~selftaught.objectives.simclr`.

    Args:
        z1: (B, D) unit vectors of the first view: nothing is normalised here.
        z2: (B, D) unit vectors of the second view; row i belongs to the same sample.
        temperature: T, above 0; a tensor of one number gets a gradient.
        tau_plus: probability that a negative is of the anchor's class, in [0, 1).
        beta: concentration on hard negatives, 0 or more. The weights carry gradient.

    Returns:
        A scalar above 0.

    Raises:
        UserError: (a ``ValueError``) B < 2, shapes differ, a hyper-parameter outside its range.
    """
    rows, _ = check_views(z1, z2, minimum=2, why=NO_NEGATIVES)
    check_positive(temperature=temperature)
    if not (0 <= tau_plus < 1 and beta >= 0):
        raise UserError(f"tau_plus must lie in [0, 1) and beta be 0 or more, got {tau_plus} and {beta}")
    expect_unit("hcl", z1, z2)
    both, count = torch.cat([z1, z2]), 2 * rows - 2
    anchor = torch.arange(2 * rows, device=z1.device).unsqueeze(1)
    left_out = torch.cat([anchor, (anchor + rows) % (2 * rows)], 1)
    above = lse_self(both, scale=(1 + beta) / temperature, exclude=left_out)
    below = lse_self(both, scale=beta / temperature, exclude=left_out) if beta else math.log(count)
    positive = ((z1 * z2).sum(1) / temperature).repeat(2)
    log_r = above - below + math.log(count)
    return softplus(_debiased(log_r, positive + math.log(count), -1 / temperature, count, tau_plus) - positive).mean()


def _debiased(log_r: Tensor, log_mp: Tensor, log_floor: float | Tensor, count: int, tau_plus: float | Tensor) -> Tensor:
    """Log G, never leaving the logarithm: log R + log(1 - tau_plus M p / R) - log(1 - tau_plus), and the floor."""
    floor = math.log(count) + torch.as_tensor(log_floor, dtype=log_r.dtype, device=log_r.device)
    if not tau_plus:
        return torch.maximum(log_r, floor)
    prior = torch.as_tensor(tau_plus, dtype=log_r.dtype, device=log_r.device)  # keeps a gradient that it waits for
    share = prior.log() + log_mp - log_r
    left = share < 0  # else nothing is left of R
    inside = (-torch.expm1(torch.where(left, share, -1.0))).log() - torch.log1p(-prior)
    return torch.where(left, torch.maximum(log_r + inside, floor), floor)
