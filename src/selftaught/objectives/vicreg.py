"""VICReg: views agree, features spread, none repeats another."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from selftaught.objectives._common import check_choice, check_positive, check_views, in_float32
from selftaught.objectives._correlation import STATISTICS, off_diagonal_squares

__all__ = ["vicreg", "vicreg_terms"]


def vicreg(
    z1: Tensor,
    z2: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    gamma: float = 1.0,
    eps: float = 1e-4,
    std_reduction: str = "sum",
) -> Tensor:
    """VICReg (Bardes et al., ICLR 2022, arXiv 2105.04906, eq. 1-6): views agree, features spread, none repeats another.

        L = invariance * mean_{n,d} (z1 - z2)^2 + variance * [V(z1) + V(z2)] + covariance * [C(z1) + C(z2)]
        V(z) = mean_d relu(gamma - sqrt(Var_d + eps)),      C(z) = (1/D) sum_{i != j} Cov_ij^2

    Variance and covariance over the batch with the divisor N - 1.

    Args:
        z1: (N, D) expander outputs of the first view, **not** normalised. With several processes: gathered.
        z2: (N, D) expander outputs of the second view.
        invariance: weight lambda of the mean squared difference (a mean over N and D; the paper's eq. 5 sums over D).
        variance: weight mu of the hinge on the deviations.
        covariance: weight nu of the squared covariances.
        gamma: target of every feature's standard deviation.
        eps: inside the square root.
        std_reduction: V of the two views: ``"sum"`` (paper, solo-learn) or ``"mean"`` (the official code).

    Returns:
        A scalar >= 0. All rows equal: variance * 2 * (gamma - sqrt(eps)), 49.5 by default.

    Raises:
        UserError: (a ``ValueError``) N < 2, shapes differ, an unknown ``std_reduction``, an eps not above 0.
    """
    return vicreg_terms(
        z1, z2, invariance=invariance, variance=variance, covariance=covariance, gamma=gamma, eps=eps,
        std_reduction=std_reduction,
    )["loss"]  # fmt: skip


@in_float32
def vicreg_terms(
    z1: Tensor,
    z2: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    gamma: float = 1.0,
    eps: float = 1e-4,
    std_reduction: str = "sum",
) -> dict[str, Tensor]:
    """:func:`vicreg` with its terms without weights: ``loss``, ``invariance``, ``variance``, ``covariance``."""
    check_choice("std_reduction", std_reduction, ("sum", "mean"))
    check_positive(eps=eps)
    rows, width = check_views(z1, z2, minimum=2, why=STATISTICS)
    spread, repetition = z1.new_zeros(()), z1.new_zeros(())
    for z in (z1, z2):
        centred = z - z.mean(0)
        var = centred.square().sum(0) / (rows - 1)
        spread = spread + F.relu(gamma - (var + eps).sqrt()).mean()
        repetition = repetition + off_diagonal_squares(centred, centred, var, rows - 1) / width
    spread = spread / 2 if std_reduction == "mean" else spread
    distance = F.mse_loss(z1, z2)
    loss = invariance * distance + variance * spread + covariance * repetition
    return {"loss": loss, "invariance": distance, "variance": spread, "covariance": repetition}
