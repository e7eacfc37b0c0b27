"""iBOT: DINO's self-distillation of whole images, and of hidden patches."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, in_float32
from selftaught.objectives.dino import Crops, dino_terms

__all__ = ["ibot", "ibot_center", "ibot_patches", "ibot_terms"]


@in_float32
def ibot_patches(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    center: Tensor | None = None,
    student_temperature: float | Tensor = 0.1,
    teacher_temperature: float | Tensor = 0.04,
) -> Tensor:
    """iBOT's masked image modelling: of a hidden patch the student says what the teacher says who sees it.

        L_patch = mean over views u, mean over images b  [ sum_i m_i H(P_i, softmax(s_i / tau_s)) / max(1, sum_i m_i) ]
        P_i = softmax((t_i - c_2) / tau_2),        H(p, q) = - sum_k p_k log q_k

    Both see the same view, the student with its hidden patches replaced. The number of hidden patches is each image's.

    Args:
        student: s (U, N, L, K) logits of the patches of U views.
        teacher: t (U, N, L, K); a constant.
        mask: m (U, N, L), True where the student's patch was hidden.
        center: c_2 (K,) or (1, 1, K); None is 0.
        student_temperature: tau_s, above 0.
        teacher_temperature: tau_2, above 0; 0.04, in long runs rising to 0.07.

    Returns:
        A scalar >= 0; 0 where nothing is hidden.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a temperature that isn't above 0.
    """
    check_floats(student=student, teacher=teacher, center=center)
    check_positive(student_temperature=student_temperature, teacher_temperature=teacher_temperature)
    _check_patches(student, teacher, mask)
    _check_center(center, student.shape[3])
    hidden = mask.to(student.dtype)
    logits = teacher.detach() if center is None else teacher.detach() - center.detach().reshape(-1)
    targets = (logits / teacher_temperature).softmax(3)
    each = -(targets * (student / student_temperature).log_softmax(3)).sum(3)
    return ((each * hidden).sum(2) / hidden.sum(2).clamp_min(1)).mean()


def ibot(
    student: Crops,
    teacher: Crops,
    student_patches: Tensor,
    teacher_patches: Tensor,
    mask: Tensor,
    *,
    center: Tensor | None = None,
    patch_center: Tensor | None = None,
    student_temperature: float | Tensor = 0.1,
    teacher_temperature: float | Tensor = 0.04,
    patch_temperature: float | Tensor = 0.04,
    lambda1: float = 1.0,
    lambda2: float = 1.0,
) -> Tensor:
    """iBOT (Zhou et al., ICLR 2022, arXiv 2111.07832): L = lambda1 L_cls + lambda2 L_patch.

    L_cls is :func:`dino` over class tokens (the student sees masked large crops), L_patch :func:`ibot_patches` over the
    large crops. After the loss move both centres with :func:`ibot_center`.

    Args:
        student: class-token logits of all V crops, large ones first: (V, N, K).
        teacher: class-token logits of the U large crops: (U, N, K).
        student_patches: (U, N, L, K) of the large crops, masked.
        teacher_patches: (U, N, L, K) of the large crops, whole.
        mask: (U, N, L), True where hidden from the student.
        center: (K,) of the class tokens.
        patch_center: (K,) or (1, 1, K) of the patches.
        student_temperature, teacher_temperature: tau_s and tau_t.
        patch_temperature: tau_2 of the teacher's patches.
        lambda1, lambda2: weights.

    Returns:
        A scalar >= 0.

    Raises:
        UserError: (a ``ValueError``) as the two parts raise it.
    """
    return ibot_terms(
        student, teacher, student_patches, teacher_patches, mask, center=center, patch_center=patch_center,
        student_temperature=student_temperature, teacher_temperature=teacher_temperature,
        patch_temperature=patch_temperature, lambda1=lambda1, lambda2=lambda2,
    )["loss"]  # fmt: skip


def ibot_terms(
    student: Crops,
    teacher: Crops,
    student_patches: Tensor,
    teacher_patches: Tensor,
    mask: Tensor,
    *,
    center: Tensor | None = None,
    patch_center: Tensor | None = None,
    student_temperature: float | Tensor = 0.1,
    teacher_temperature: float | Tensor = 0.04,
    patch_temperature: float | Tensor = 0.04,
    lambda1: float = 1.0,
    lambda2: float = 1.0,
) -> dict[str, Tensor]:
    """:func:`ibot` with its terms: ``loss``, ``cls``, ``patch``, and DINO's ``teacher_entropy`` and ``kl``."""
    whole = dino_terms(
        student, teacher, center=center, student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
    )  # fmt: skip
    patch = ibot_patches(
        student_patches, teacher_patches, mask, center=patch_center, student_temperature=student_temperature,
        teacher_temperature=patch_temperature,
    )  # fmt: skip
    loss = lambda1 * whole["loss"] + lambda2 * patch
    shown = {name: whole[name] for name in ("teacher_entropy", "kl")}
    return {"loss": loss, "cls": whole["loss"], "patch": patch} | shown


@torch.no_grad()
def ibot_center(center: Tensor, teacher_patches: Tensor, *, momentum: float = 0.9) -> Tensor:
    """The patches' centre after a step: c_2 <- momentum c_2 + (1 - momentum) mean logits over images and patches.

    Args:
        center: (K,) or (1, 1, K), 0 at first.
        teacher_patches: (..., L, K) logits of whole views, of all processes.
        momentum: in [0, 1].

    Returns:
        A new tensor of the centre's shape. Take it after the loss, not before.

    Raises:
        UserError: (a ``ValueError``) a momentum outside [0, 1], logits of another width.
    """
    check_floats(center=center, teacher_patches=teacher_patches)
    if not 0 <= momentum <= 1:
        raise UserError(f"the centre's momentum must lie in [0, 1], got {momentum}")
    if teacher_patches.dim() < 2 or 0 in teacher_patches.shape:
        raise UserError(f"the teacher's patches need the shape (..., L, K), got {tuple(teacher_patches.shape)}")
    _check_center(center, teacher_patches.shape[-1])
    mean = teacher_patches.to(center.dtype).flatten(0, -2).mean(0)
    return momentum * center + (1 - momentum) * mean.view(center.shape)


def _check_center(center: Tensor | None, width: int) -> None:
    if center is not None and tuple(center.shape) not in ((width,), (1, 1, width)):
        raise UserError(f"the centre needs the shape ({width},) or (1, 1, {width}), got {tuple(center.shape)}")


def _check_patches(student: Tensor, teacher: Tensor, mask: Tensor) -> None:
    fits = student.dim() == 4 and student.shape == teacher.shape and mask.shape == student.shape[:3]
    if not fits or 0 in student.shape:
        shapes = [tuple(t.shape) for t in (student, teacher, mask)]
        raise UserError(f"patches and mask need shapes (U, N, L, K), (U, N, L, K) and (U, N, L), got {shapes}")
