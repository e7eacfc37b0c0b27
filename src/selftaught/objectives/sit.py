"""SiT: restore what was corrupted, and agree with a teacher that sees the clean other view (arXiv 2104.03602).

    L = L_con + lambda L_rec
    L_con = 2 tau (CE(q_1 K_2^T / tau, y) + CE(q_2 K_1^T / tau, y)),        y_i = i + N rank
    L_rec = sum M |rec - x| / sum M

The early versions add rotation prediction and learnt weights: :func:`uncertainty_weighted`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, check_positive, in_float32, one_number, unit

__all__ = ["sit", "sit_contrastive", "sit_reconstruction", "uncertainty_weighted"]


@in_float32
def sit_contrastive(
    q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, *, temperature: float | Tensor = 0.2, rank: int = 0
) -> Tensor:
    """Contrast of corrupted queries with the clean keys of the other view (MoCo v3's form without a predictor).

    Args:
        q1: (N, D) queries of the first view, corrupted; normalised here, as all are.
        q2: (N, D) queries of the second view.
        k1: (W N, D) keys of the first view, clean, of all W processes; constants.
        k2: (W N, D) keys of the second view.
        temperature: tau.
        rank: which N rows of the keys belong to these queries.

    Returns:
        A scalar >= 0; 0 for a single pair, 4 tau log N where all rows are equal.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a rank without keys, a temperature that isn't above 0.
    """
    check_floats(q1=q1, q2=q2, k1=k1, k2=k2)
    check_positive(temperature=temperature)
    shapes = [tuple(t.shape) for t in (q1, q2, k1, k2)]
    fits = all(len(s) == 2 for s in shapes) and shapes[0] == shapes[1] and shapes[2] == shapes[3]
    if not fits or shapes[0][1] != shapes[2][1] or not shapes[0][0]:
        raise UserError(f"queries need one shape (N, D), keys one shape (W N, D), got {shapes}")
    rows = shapes[0][0]
    if shapes[2][0] % rows or not 0 <= rank < shapes[2][0] // rows:
        raise UserError(f"{shapes[2][0]} keys hold no rows of rank {rank} for {rows} queries")
    tau, labels = one_number(temperature), torch.arange(rows, device=q1.device) + rows * rank
    pairs = ((q1, k2), (q2, k1))
    return (
        2 * tau * sum((F.cross_entropy(unit(q) @ unit(k.detach()).T / tau, labels) for q, k in pairs), q1.new_zeros(()))
    )


@in_float32
def sit_reconstruction(restored: Tensor, clean: Tensor, mask: Tensor, *, kind: str = "l1") -> Tensor:
    """Mean error of the corrupted values alone: one ratio over the whole batch, no mean of images' means.

    Args:
        restored: (N, C, H, W).
        clean: (N, C, H, W), a constant.
        mask: of the same shape, or (N, 1, H, W) for all channels; True or 1 where corrupted.
        kind: "l1" or "l2".

    Returns:
        A scalar >= 0; 0 where nothing is corrupted.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, integers, an unknown kind.
    """
    check_floats(restored=restored, clean=clean)
    check_choice("kind", kind, ("l1", "l2"))
    whole = clean.shape
    if restored.dim() != 4 or restored.shape != whole or mask.shape not in (whole, (whole[0], 1, *whole[2:])):
        shapes = [tuple(t.shape) for t in (restored, clean, mask)]
        raise UserError(
            f"restored and clean images need one shape (N, C, H, W), the mask that or one channel, got {shapes}"
        )
    weight = mask.to(restored.dtype).expand_as(restored)
    difference = restored - clean.detach()
    error = difference.abs() if kind == "l1" else difference.square()
    return (weight * error).sum() / weight.sum().clamp_min(1)


@in_float32
def sit(
    q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, restored: Tensor, clean: Tensor, mask: Tensor, *,
    temperature: float | Tensor = 0.2, weight: float = 1.0,
) -> Tensor:  # fmt: skip
    """L_con + lambda L_rec; see :func:`sit_contrastive` and :func:`sit_reconstruction`.

    Args:
        q1: (N, D).
        q2: (N, D).
        k1: (N, D).
        k2: (N, D).
        restored: (2 N, C, H, W), both views.
        clean: (2 N, C, H, W).
        mask: (2 N, C, H, W).
        temperature: tau.
        weight: lambda (1; the authors advise about 5 for small sets).
    """
    return sit_contrastive(q1, q2, k1, k2, temperature=temperature) + weight * sit_reconstruction(restored, clean, mask)


@in_float32
def uncertainty_weighted(losses: Sequence[Tensor], log_variances: Tensor) -> Tensor:
    """Terms weighted by learnt uncertainty (Kendall et al., arXiv 1705.07115, as SiT's early versions have it).

        L = sum_k exp(-s_k) L_k + s_k

    Args:
        losses: K scalars.
        log_variances: (K,) s, learnt.

    Raises:
        UserError: (a ``ValueError``) no term, or another number of weights.
    """
    if not losses or log_variances.shape != (len(losses),) or any(t.numel() != 1 for t in losses):
        raise UserError(f"{len(losses)} scalar terms need as many log variances, got {tuple(log_variances.shape)}")
    check_floats(log_variances=log_variances)
    stacked = torch.stack([t.reshape(()).to(log_variances) for t in losses])
    return ((-log_variances).exp() * stacked + log_variances).sum()
