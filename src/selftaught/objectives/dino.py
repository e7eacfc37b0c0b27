"""DINO: a student predicts the centred, sharpened prototypes of a momentum teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, check_views, in_float32

__all__ = ["dino", "dino_center", "dino_terms"]

Crops = Tensor | Sequence[Tensor]


def dino(
    student: Crops,
    teacher: Crops,
    *,
    center: Tensor | None = None,
    student_temperature: float | Tensor = 0.1,
    teacher_temperature: float | Tensor = 0.04,
) -> Tensor:
    """DINO (Caron et al., ICCV 2021, arXiv 2104.14294, eq. 3): the student's crops predict the teacher's global ones.

        L = 1/n sum_{u < U} sum_{v < V, v != u}  mean_b  -sum_k P_u[b,k] log softmax_k(s_v[b] / student_temperature)
        P_u = softmax((t_u - center) / teacher_temperature),        n = number of pairs, U (V - 1)

    The teacher is a constant. The centre keeps one prototype from winning everywhere, the teacher's low temperature
    keeps its output from becoming uniform; without the first the output collapses to one prototype, without the second
    to log K. After the loss move the centre with :func:`dino_center`.

    Args:
        student: logits of the V crops, global ones first: (V, N, K), or V tensors (N, K).
        teacher: logits of the U <= V global crops in the same order: (U, N, K), or U tensors (N, K).
        center: (K,) subtracted from the teacher's logits; None is 0 (no centring).
        student_temperature: above 0.
        teacher_temperature: above 0, below the student's; the paper warms it up from 0.04 to 0.07 in long runs.

    Returns:
        A scalar >= 0; log K where all logits and the centre are 0.

    Raises:
        UserError: (a ``ValueError``) fewer than two student crops, more teacher crops than student crops, shapes that
            differ, a temperature that isn't above 0.
    """
    return dino_terms(
        student, teacher, center=center, student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
    )["loss"]  # fmt: skip


def dino_terms(
    student: Crops,
    teacher: Crops,
    *,
    center: Tensor | None = None,
    student_temperature: float | Tensor = 0.1,
    teacher_temperature: float | Tensor = 0.04,
) -> dict[str, Tensor]:
    """:func:`dino` with what shows a collapse, both without gradient.

    ``loss``; ``teacher_entropy``, the mean entropy of P in nats (log K: uniform); ``kl`` = loss - teacher_entropy, what
    the student has still to learn (0 together with any entropy: nothing is taught).
    """
    s, t = _stack(student, "student"), _stack(teacher, "teacher")
    check_positive(student_temperature=student_temperature, teacher_temperature=teacher_temperature)
    if len(s) < 2 or len(t) > len(s):
        raise UserError(
            f"{len(t)} teacher and {len(s)} student crops: the student needs 2, and no fewer than the teacher"
        )
    if s.shape[1:] != t.shape[1:] or (center is not None and center.shape != s.shape[2:]):
        shapes = [tuple(x.shape[1:]) for x in (s, t)] + ([] if center is None else [tuple(center.shape)])
        raise UserError(f"student, teacher and centre need shapes (N, K), (N, K) and (K,), got {shapes}")
    check_floats(center=center)
    return _dino(s, t.detach(), t.new_zeros(()) if center is None else center, student_temperature, teacher_temperature)


@in_float32
def _dino(
    student: Tensor, teacher: Tensor, center: Tensor, tau_s: float | Tensor, tau_t: float | Tensor
) -> dict[str, Tensor]:
    targets = ((teacher - center.detach()) / tau_t).softmax(2)
    every, pairs = targets.sum(0), len(teacher) * (len(student) - 1)
    loss = student.new_zeros(())
    for v, logits in enumerate(student):
        wanted = every - targets[v] if v < len(targets) else every
        loss = loss - (wanted * (logits / tau_s).log_softmax(1)).sum(1).mean() / pairs
    entropy = -torch.special.xlogy(targets, targets).sum(2).mean()
    return {"loss": loss, "teacher_entropy": entropy, "kl": (loss - entropy).detach()}


def _stack(crops: Crops, name: str) -> Tensor:
    """(V, N, K) logits from a tensor or a list of tensors (N, K)."""
    if not isinstance(crops, Tensor):
        check_views(*crops)
        crops = torch.stack(list(crops))
    check_floats(**{f"the {name}": crops})
    if crops.dim() != 3 or not len(crops) or not crops.shape[1]:
        raise UserError(f"the {name}'s logits need the shape (crops, batch, prototypes), got {tuple(crops.shape)}")
    return crops


@torch.no_grad()
def dino_center(center: Tensor, teacher: Crops, *, momentum: float = 0.9) -> Tensor:
    """The centre after a step: momentum * center + (1 - momentum) * mean of the teacher's logits (DINO, eq. 4).

    Args:
        center: (K,), 0 at first.
        teacher: (U, N, K), or U tensors (N, K): logits, not probabilities, of all crops and all processes.
        momentum: in [0, 1].

    Returns:
        A new tensor (K,). Take it after the loss, not before.

    Raises:
        UserError: (a ``ValueError``) a momentum outside [0, 1], or logits of another width.
    """
    logits = _stack(teacher, "teacher")
    if not 0 <= momentum <= 1:
        raise UserError(f"the centre's momentum must lie in [0, 1], got {momentum}")
    check_floats(center=center)
    if center.shape != logits.shape[2:]:
        raise UserError(f"a centre of shape {tuple(center.shape)} for logits of width {logits.shape[2]}")
    return momentum * center + (1 - momentum) * logits.to(center.dtype).mean((0, 1))
