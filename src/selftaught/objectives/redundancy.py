"""Redundancy reduction: Barlow Twins."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from selftaught.objectives._common import check_choice, check_views, in_float32

EPSILON = 1e-5


def barlow_twins(
    z1: Tensor,
    z2: Tensor,
    *,
    lambda_: float = 0.0051,
    normalize: str = "batch",
    terms: str = "both",
    loss_scale: float = 1.0,
    hsic: bool = False,
    centre_only: bool = False,
) -> Tensor:
    """Barlow Twins (Zbontar et al., ICML 2021, arXiv 2103.03230, eq. 1-2): the cross-correlation is to be the identity.

        L = loss_scale * ( sum_i (1 - C_ii)^2 + lambda * sum_{i != j} C_ij^2 ),    C = Zh1^T Zh2 / N

    Zh is Z standardised per feature over the batch: (z - mean) / sqrt(var + 1e-5) with the biased variance (divisor N).
    Plain sums over the entries of C, no division by D. Gradients flow through both views and the standardisation.

    Args:
        z1: (N, D) projector outputs of the first view, not normalised. With several processes: gathered.
        z2: (N, D) projector outputs of the second view.
        lambda_: weight of the redundancy term.
        normalize: ``"batch"`` (the method), ``"feature"`` (each sample over its D features) or ``"none"``; ablations.
        terms: ``"both"``, or ``"invariance"`` or ``"redundancy"`` alone; ablations.
        loss_scale: factor on the whole, many re-implementations take 0.1 or 1/D.
        hsic: the target off the diagonal is -1 instead of 0, (C_ij + 1)^2 (the Barlow-Twins-HSIC follow-up).
        centre_only: subtract the mean but don't divide by the deviation; an ablation.

    Returns:
        A scalar >= 0. A constant feature has C_ii = 0 and adds 1, without NaN.

    Raises:
        UserError: (a ``ValueError``) N < 2, shapes differ, an unknown ``normalize`` or ``terms``.
    """
    return barlow_twins_terms(
        z1, z2, lambda_=lambda_, normalize=normalize, terms=terms, loss_scale=loss_scale, hsic=hsic,
        centre_only=centre_only,
    )["loss"]  # fmt: skip


@in_float32
def barlow_twins_terms(
    z1: Tensor,
    z2: Tensor,
    *,
    lambda_: float = 0.0051,
    normalize: str = "batch",
    terms: str = "both",
    loss_scale: float = 1.0,
    hsic: bool = False,
    centre_only: bool = False,
) -> dict[str, Tensor]:
    """:func:`barlow_twins` with its terms: ``loss``, ``invariance`` and ``redundancy`` (both without their weights)."""
    check_choice("normalize", normalize, ("batch", "feature", "none"))
    check_choice("terms", terms, ("both", "invariance", "redundancy"))
    rows, _ = check_views(z1, z2, minimum=2, why=" (for statistics over it); raise the batch size")
    a, b = (_standardise(z, normalize, centre_only) for z in (z1, z2))
    diagonal = (a * b).sum(0) / rows
    invariance = (1 - diagonal).square().sum()
    redundancy = _redundancy(a, b, diagonal, hsic)
    total = {"both": invariance + lambda_ * redundancy, "invariance": invariance, "redundancy": lambda_ * redundancy}
    return {"loss": loss_scale * total[terms], "invariance": invariance, "redundancy": redundancy}


def _standardise(z: Tensor, normalize: str, centre_only: bool) -> Tensor:
    if normalize == "none":
        return z
    if centre_only:
        return z - z.mean(0 if normalize == "batch" else 1, keepdim=True)
    if normalize == "batch":
        return F.batch_norm(z, None, None, training=True, eps=EPSILON)
    return F.layer_norm(z, z.shape[1:], eps=EPSILON)


def _redundancy(a: Tensor, b: Tensor, diagonal: Tensor, hsic: bool) -> Tensor:
    """Sum over i != j of C_ij^2, or of (C_ij + 1)^2, with C = a^T b / N.

    A wide projector has D well above N; then ||C||^2 = sum((a a^T) * (b b^T)) / N^2 needs two N x N matrices where C
    needs D x D: at N = 256, D = 8192 that is 0.5 MiB in place of 256 MiB and a sixteenth of the work. For D < 2N the
    entries off the diagonal are summed one by one, since there ||C||^2 - sum C_ii^2 could cancel.
    """
    rows, width = a.shape
    if 2 * rows <= width:
        squares = ((a @ a.T) * (b @ b.T)).sum() / rows**2 - diagonal.square().sum()
        sums = (a.sum(1) @ b.sum(1)) / rows - diagonal.sum() if hsic else squares
    else:
        off = _off_diagonal(a.T @ b / rows)
        squares, sums = off.square().sum(), off.sum()
    return squares + 2 * sums + width * (width - 1) if hsic else squares


def _off_diagonal(matrix: Tensor) -> Tensor:
    """A view (D-1, D) of exactly the entries of a (D, D) matrix off its diagonal, without a copy.

    Without its last entry the flat matrix falls into D - 1 rows of D + 1, each headed by a diagonal entry.
    """
    width = matrix.shape[0]
    return matrix.flatten()[:-1].view(width - 1, width + 1)[:, 1:]
