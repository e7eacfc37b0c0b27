"""The spectral contrastive loss, its population form for a linear model, the projection-head study's losses."""

from __future__ import annotations

from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import NO_NEGATIVES, check_choice, check_floats, check_views, in_float32
from selftaught.objectives.simclr import simclr
from selftaught.objectives.supcon import supcon
from selftaught.objectives.supervised import supervised

__all__ = ["projection_head", "spectral", "spectral_population"]


@in_float32
def spectral(z1: Tensor, z2: Tensor) -> Tensor:
    """Spectral contrastive loss (HaoChen et al., NeurIPS 2021; the theory of arXiv 2403.11391).

        L = -2 mean_i <z1_i, z2_i> + mean_{i != j} <z1_i, z2_j>^2

    an unbiased estimate of -2 E[f(x1)^T f(x2)] + E[(f(x)^T f(x'))^2]. Nothing is normalised: lengths matter.
    Memory is linear in the batch as long as D is smaller.

    Args:
        z1: (N, D) projections of the first view, not normalised. With several processes: gathered.
        z2: (N, D) projections of the second view.

    Returns:
        A scalar, often negative. All projections 0: 0.

    Raises:
        UserError: (a ``ValueError``) fewer than two samples, shapes differ or aren't (N, D).
    """
    rows, width = check_views(z1, z2, minimum=2, why=NO_NEGATIVES)
    positive = (z1 * z2).sum(1)
    if width < rows:
        everything = ((z1.T @ z1) * (z2.T @ z2)).sum()
    else:
        everything = (z1 @ z2.T).square().sum()
    return -2 * positive.mean() + (everything - positive.square().sum()) / (rows * (rows - 1))


@in_float32
def spectral_population(weight: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """Expected spectral loss of the linear map f(x) = W x on independent features (arXiv 2403.11391, section 3).

        L(W) = tr((W M W^T)^2) - 2 tr(W S W^T),    S = diag(phi^2),  M = diag(phi^2 + sigma^2)

    Two views of a sample share phi_j times a unit variable in feature j and differ in noise of deviation sigma_j. With
    at least as many rows as features the minimum has W^T W = diag((phi_j / (phi_j^2 + sigma_j^2))^2) and the value
    -sum_j phi_j^4 / (phi_j^2 + sigma_j^2)^2.

    Args:
        weight: (P, F) the map W.
        signal: (F,) phi.
        noise: (F,) sigma.

    Returns:
        A scalar.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit.
    """
    if weight.dim() != 2 or signal.shape != weight.shape[1:] or noise.shape != signal.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (weight, signal, noise))
        raise UserError(f"spectral_population needs W (P, F), phi (F,) and sigma (F,), got {shapes}")
    check_floats(weight=weight, signal=signal, noise=noise)
    shared = signal.square()
    covariance = (weight * (shared + noise.square())) @ weight.T
    return covariance.square().sum() - 2 * (weight.square() @ shared).sum()


@in_float32
def projection_head(
    z1: Tensor,
    z2: Tensor | None = None,
    *,
    labels: Tensor | None = None,
    loss: str = "simclr",
    temperature: float | Tensor = 0.5,
) -> Tensor:
    """The losses that the projection-head study trains with, on the output of whatever head (arXiv 2403.11391).

    Args:
        z1: (N, D) projections of the first view, or for ``"ce"`` the class logits (N, C).
        z2: (N, D) projections of the second view; ``"supcon"`` takes one view or two, ``"ce"`` one.
        labels: (N,) int64, for ``"supcon"`` and ``"ce"``.
        loss: ``"simclr"`` (:func:`simclr`), ``"spectral"`` (:func:`spectral`), ``"supcon"`` (:func:`supcon`, the mean
            over positives outside the logarithm, anchors without a positive dropped) or ``"ce"`` (cross-entropy).
        temperature: of simclr and supcon; a tensor of one number gets a gradient.

    Returns:
        A scalar.

    Raises:
        UserError: (a ``ValueError``) an unknown loss; a view or labels missing; what the loss itself refuses.
    """
    check_choice("loss", loss, ("simclr", "spectral", "supcon", "ce"))
    if loss in ("supcon", "ce"):
        if labels is None:
            raise UserError(f"loss={loss} needs labels (N,)")
        if loss == "ce":
            if z2 is not None:
                raise UserError("loss=ce takes the class logits (N, C) alone, and a second view was given")
            return supervised(z1, labels)
        return supcon(*(z for z in (z1, z2) if z is not None), labels=labels, temperature=temperature)
    if z2 is None:
        raise UserError(f"loss={loss} needs two views")
    return spectral(z1, z2) if loss == "spectral" else simclr(z1, z2, temperature=temperature)
