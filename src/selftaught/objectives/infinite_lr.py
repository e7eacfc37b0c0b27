"""What keeps a network near what it knew of earlier tasks: MAS and LwF, the baselines of arXiv 2503.02844.

    MAS   lambda sum_j omega_j (theta_j - theta*_j)^2,   omega_j = mean_batches |d/dtheta_j G|,  G = mean ||f(x)||^2
    LwF   alpha (1 - mean cos(f_old(x), f_new(x)))

Both are added to the loss of a further task. (The public code takes norm and cosine along the batch; ``axis`` does so
for comparison.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import SHORTEST, check_floats, in_float32

__all__ = ["lwf", "mas_merge", "mas_output", "mas_penalty"]


@in_float32
def mas_output(features: Tensor, *, axis: int = -1) -> Tensor:
    """G: the mean over samples (and tokens) of the squared length of the features.

    Args:
        features: (..., D).
        axis: along which the length is taken.

    Raises:
        UserError: (a ``ValueError``) integers, a tensor without such an axis.
    """
    check_floats(features=features)
    if not -features.dim() <= axis < features.dim():
        raise UserError(f"features of shape {tuple(features.shape)} have no axis {axis}")
    return features.square().sum(axis).mean()


def mas_merge(old: Sequence[Tensor], new: Sequence[Tensor], *, alpha: float = 0.5) -> list[Tensor]:
    """Importance of the weights after a further task: omega <- alpha omega_old + (1 - alpha) omega_new.

    Args:
        old: importance after the tasks before, a tensor per parameter.
        new: of the last task, >= 0.
        alpha: share of the old one.

    Raises:
        UserError: (a ``ValueError``) tensors that don't fit each other, a share outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha={alpha} must be a share from 0 to 1")
    _check_alike("old and new importance", old, new)
    return [alpha * a + (1 - alpha) * b for a, b in zip(old, new, strict=True)]


def mas_penalty(
    parameters: Sequence[Tensor], anchors: Sequence[Tensor], omega: Sequence[Tensor], *, weight: float = 1.0
) -> Tensor:
    """lambda sum_j omega_j (theta_j - theta*_j)^2: moving an important weight costs.

    Args:
        parameters: theta.
        anchors: theta*, as the last task left them.
        omega: importance, >= 0.
        weight: lambda.

    Returns:
        A scalar >= 0; 0 with a gradient of 0 at the anchors.

    Raises:
        UserError: (a ``ValueError``) nothing given, or tensors that don't fit each other.
    """
    _check_alike("parameters and anchors", parameters, anchors)
    _check_alike("parameters and importance", parameters, omega)
    terms = [(w * (p - a.detach()).square()).sum() for p, a, w in zip(parameters, anchors, omega, strict=True)]
    return weight * torch.stack([t.to(terms[0]) for t in terms]).sum()


@in_float32
def lwf(new: Tensor, old: Tensor, *, alpha: float = 1.0, axis: int = -1) -> Tensor:
    """alpha (1 - mean cosine of new and old features): learning without forgetting, on features.

    Args:
        new: (..., D) of the network that learns.
        old: (..., D) of the network before the task, a constant; of the same visible patches.
        alpha: weight.
        axis: along which the cosine is taken.

    Returns:
        A scalar from 0 (alike) to 2 alpha (opposite).

    Raises:
        UserError: (a ``ValueError``) shapes that differ, integers.
    """
    check_floats(new=new, old=old)
    if new.shape != old.shape or not -new.dim() <= axis < new.dim():
        raise UserError(
            f"new and old features need one shape with axis {axis}, got {tuple(new.shape)}, {tuple(old.shape)}"
        )
    return alpha * (1 - torch.cosine_similarity(new, old.detach(), dim=axis, eps=SHORTEST).mean())


def _check_alike(what: str, a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
    if not a or len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        raise UserError(
            f"{what} need equal shapes, got {[tuple(x.shape) for x in a]} and {[tuple(y.shape) for y in b]}"
        )
    check_floats(**{f"{what}_{k}": t for k, t in enumerate([*a, *b])})
