"""Contrast with debiased and with hard negatives (HCL): baselines of CACR and iSogCLR."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_positive, check_views, in_float32
from selftaught.objectives._tiled import lse_self
from selftaught.objectives.contrastive import NO_NEGATIVES


@in_float32
def hcl(z1: Tensor, z2: Tensor, *, temperature: float = 0.5, tau_plus: float = 0.1, beta: float = 1.0) -> Tensor:
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
        temperature: T, above 0.
        tau_plus: chance that a negative is of the anchor's class, in [0, 1).
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
    both, count = torch.cat([z1, z2]), 2 * rows - 2
    anchor = torch.arange(2 * rows, device=z1.device).unsqueeze(1)
    left_out = torch.cat([anchor, (anchor + rows) % (2 * rows)], 1)
    above = lse_self(both, scale=(1 + beta) / temperature, exclude=left_out)
    below = lse_self(both, scale=beta / temperature, exclude=left_out) if beta else math.log(count)
    positive = (z1 * z2).sum(1).repeat(2) / temperature
    hard = (above - below + math.log(count)).exp()
    negatives = (hard - tau_plus * count * positive.exp()) / (1 - tau_plus)
    return F.softplus(negatives.clamp(min=count * math.exp(-1 / temperature)).log() - positive).mean()
