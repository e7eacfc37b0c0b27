"""Barlow Twins: the cross-correlation of two views is to be the identity."""

from __future__ import annotations

from torch import Tensor

from selftaught.objectives._common import check_choice, check_views, in_float32
from selftaught.objectives._correlation import STATISTICS, off_diagonal_squares, standardise

__all__ = ["barlow_twins", "barlow_twins_terms"]


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
    rows, _ = check_views(z1, z2, minimum=2, why=STATISTICS)
    a, b = (standardise(z, normalize, centre_only) for z in (z1, z2))
    diagonal = (a * b).sum(0) / rows
    invariance = (1 - diagonal).square().sum()
    redundancy = off_diagonal_squares(a, b, diagonal, rows, hsic)
    total = {"both": invariance + lambda_ * redundancy, "invariance": invariance, "redundancy": lambda_ * redundancy}
    return {"loss": loss_scale * total[terms], "invariance": invariance, "redundancy": redundancy}
