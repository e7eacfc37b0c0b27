"""Mixed Barlow Twins: Barlow Twins, and a mixed batch embeds as the mixture of the embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import (
    check_choice,
    check_floats,
    check_positive,
    check_range,
    check_views,
    in_float32,
    unit,
)
from selftaught.objectives._correlation import STATISTICS, off_diagonal_squares, squared_product

__all__ = ["mixed_barlow_twins", "mixed_barlow_twins_terms"]


def mixed_barlow_twins(
    z1: Tensor,
    z2: Tensor,
    zm: Tensor | None = None,
    alpha: float | Tensor | None = None,
    pi: Tensor | None = None,
    *,
    lambda_bt: float = 0.0078125,
    lambda_reg: float = 4.0,
    reg_half: bool = False,
    mb_target: str = "paper",
    detach_target: bool = False,
    l2_before_standardise: bool = False,
    unbiased: bool = True,
    eps: float = 1e-6,
    groups: int = 1,
) -> Tensor:
    """Mixed Barlow Twins (2023, arXiv 2312.02151): Barlow Twins, and a mixed batch that embeds as the mixture.

    The network sees Y^M = alpha Y^A + (1 - alpha) Y^B[pi], too. With Z the embeddings standardised over the batch and
    C^XY = (Z^X)^T Z^Y / N:

        L     = L_BT + lambda_reg L_reg
        L_BT  = sum_i (C^AB_ii - 1)^2 + lambda_bt sum_{i != j} (C^AB_ij)^2
        L_reg = s ( ||C^MA - (alpha Z^A + (1 - alpha) Z^B[pi])^T Z^A / N||_F^2
                  + ||C^MB - (alpha Z^A + (1 - alpha) Z^B[pi])^T Z^B / N||_F^2 ),      s = lambda_bt

    Sums over the entries, gradients through all of it, targets included. The deviation has the divisor N - 1 and C the
    divisor N, as in the official code: C_ii reaches (N-1)/N at most. That code has no epsilon; here the deviation is
    ``eps`` at least, which changes no healthy column and keeps a constant one (it becomes 0) from NaN.

    Args:
        z1: (N, D) projections Z^A of the first view, not standardised. With several processes: gathered.
        z2: (N, D) projections Z^B of the second view.
        zm: (N, D) projections Z^M of the mixed batch; None leaves L_reg out, which is Barlow Twins.
        alpha: share of the first view in the mixture, in [0, 1]: one for the batch, or (N,) one per row. Values of a
            tensor, and of ``pi``, are looked at on the CPU only.
        pi: (N,) integers: row n was mixed with row pi[n] of the second view.
        lambda_bt: weight off the diagonal (1/128; 1/D on Tiny-ImageNet; 0.0051 on ImageNet).
        lambda_reg: weight of L_reg (4; 2 on STL-10; 1 or 2 on ImageNet).
        reg_half: s = lambda_bt / 2, as in the ImageNet script.
        mb_target: ``"paper"``, or ``"imagenet-script"``: alpha (Z^B)^T Z^B as first term of C^MB's target.
        detach_target: no gradient through the two targets; an experiment.
        l2_before_standardise: make every row a unit vector first, as the small-image network does.
        unbiased: divisor N - 1 in the variance; off: N, which is :func:`barlow_twins`' convention.
        eps: smallest deviation.
        groups: standardise so many equal runs of consecutive rows one by one (the ImageNet script: each process's).

    Returns:
        A scalar >= 0.

    Raises:
        UserError: (a ``ValueError``) N or N / groups below 2, shapes differ, ``zm`` without ``alpha`` and ``pi``
            or they without it, an alpha outside [0, 1], a pi out of range, an unknown ``mb_target``.
    """
    return mixed_barlow_twins_terms(
        z1, z2, zm, alpha, pi, lambda_bt=lambda_bt, lambda_reg=lambda_reg, reg_half=reg_half, mb_target=mb_target,
        detach_target=detach_target, l2_before_standardise=l2_before_standardise, unbiased=unbiased, eps=eps,
        groups=groups,
    )["loss"]  # fmt: skip


@in_float32
def mixed_barlow_twins_terms(
    z1: Tensor,
    z2: Tensor,
    zm: Tensor | None = None,
    alpha: float | Tensor | None = None,
    pi: Tensor | None = None,
    *,
    lambda_bt: float = 0.0078125,
    lambda_reg: float = 4.0,
    reg_half: bool = False,
    mb_target: str = "paper",
    detach_target: bool = False,
    l2_before_standardise: bool = False,
    unbiased: bool = True,
    eps: float = 1e-6,
    groups: int = 1,
) -> dict[str, Tensor]:
    """:func:`mixed_barlow_twins` with its terms: ``loss``, ``invariance``, ``redundancy``, ``regularisation``.

    Invariance and redundancy come without weights; the regularisation is L_reg, with s but without ``lambda_reg``.
    """
    check_choice("mb_target", mb_target, ("paper", "imagenet-script"))
    check_positive(eps=eps)
    views = (z1, z2) if zm is None else (z1, z2, zm)
    rows, _ = check_views(*views, minimum=2, why=STATISTICS)
    if groups < 1 or rows % groups or rows // groups < 2:
        raise UserError(f"groups must split the {rows} rows into equal parts of 2 or more, got {groups}")
    z = [_unit_deviation(unit(v) if l2_before_standardise else v, groups, unbiased, eps) for v in views]
    diagonal = (z[0] * z[1]).sum(0) / rows
    invariance, redundancy = (1 - diagonal).square().sum(), off_diagonal_squares(z[0], z[1], diagonal, rows)
    terms = {"loss": invariance + lambda_bt * redundancy, "invariance": invariance, "redundancy": redundancy}
    if zm is None and not (alpha is None and pi is None):
        raise UserError("alpha and pi belong to a mixed batch: pass its embeddings zm, too")
    if zm is not None:
        share, partner = _mixture(alpha, pi, rows)
        error = _mixture_error(z[2], z[0], z[1], share, partner, mb_target, detach_target)
        terms["regularisation"] = (0.5 if reg_half else 1.0) * lambda_bt * error
        terms["loss"] = terms["loss"] + lambda_reg * terms["regularisation"]
    return terms


def _mixture(alpha: float | Tensor | None, pi: Tensor | None, rows: int) -> tuple[float | Tensor, Tensor]:
    """The checked share, a number or (N, 1), and the checked partners."""
    if alpha is None or pi is None:
        raise UserError("the mixed embeddings zm need alpha and pi, with which the mixed batch was made")
    if tuple(pi.shape) != (rows,) or pi.is_floating_point() or pi.dtype == torch.bool:
        raise UserError(f"pi must hold {rows} integers, got {tuple(pi.shape)} of {pi.dtype}")
    check_range("pi", pi, 0, rows)
    if not isinstance(alpha, Tensor):
        if not 0 <= alpha <= 1:
            raise UserError(f"alpha must lie in [0, 1], got {alpha}")
        return alpha, pi.long()
    if alpha.ndim and tuple(alpha.shape) != (rows,):
        raise UserError(f"alpha must be one number or ({rows},), got {tuple(alpha.shape)}")
    check_floats(alpha=alpha)
    if alpha.device.type == "cpu" and not bool(((alpha >= 0) & (alpha <= 1)).all()):
        raise UserError(f"alpha must lie in [0, 1], got {alpha.min().item():g} .. {alpha.max().item():g}")
    return (alpha.unsqueeze(1) if alpha.ndim else alpha), pi.long()


def _mixture_error(
    m: Tensor, a: Tensor, b: Tensor, alpha: float | Tensor, pi: Tensor, mb_target: str, detach: bool
) -> Tensor:
    """Squared distance of C^MA and C^MB from their targets, as ||(Z^M - T)^T Z^X / N||^2 with the mixture T."""
    other = (1 - alpha) * b[pi]
    mixtures = (alpha * a + other, alpha * (a if mb_target == "paper" else b) + other)
    total = m.new_zeros(())
    for mixture, z in zip(mixtures, (a, b), strict=True):
        if detach:  # m^T z - sg(mixture^T z), as one product of twice the rows
            total = total + squared_product(torch.cat([m, -mixture.detach()]), torch.cat([z, z.detach()]))
        else:
            total = total + squared_product(m - mixture, z)
    return total / len(m) ** 2


def _unit_deviation(z: Tensor, groups: int, unbiased: bool, eps: float) -> Tensor:
    """(z - mean) / deviation per feature, within each group of rows; a deviation below ``eps`` counts as ``eps``.

    Centred twice: what rounding of the mean leaves of a constant column would count as its deviation.
    """
    parts = z.unflatten(0, (groups, -1))
    centred = parts - parts.mean(1, keepdim=True)
    centred = centred - centred.mean(1, keepdim=True)
    variance = centred.square().sum(1, keepdim=True) / (parts.shape[1] - unbiased)
    return (centred / variance.clamp_min(eps**2).sqrt()).flatten(0, 1)
