"""GLARE: self-distillation of whole images, perturbed patches and regions that a teacher attends to.

The global term is DINO's of two crops, the local one iBOT's of perturbed patches; here are the regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, in_float32, unit
from selftaught.objectives.dino import Crops, dino_terms
from selftaught.objectives.ibot import ibot_patches

__all__ = [
    "counterparts",
    "glare",
    "glare_regional",
    "glare_terms",
    "region_means",
    "region_windows",
    "sample_anchors",
]


def sample_anchors(
    attention: Tensor,
    count: int = 4,
    *,
    how: Literal["attention", "uniform", "topk"] = "attention",
    generator: torch.Generator | None = None,
) -> Tensor:
    """R tokens of every image, none twice, with a chance proportional to what the class token looks at.

    Args:
        attention: (N, L) weights, 0 or more; the mean over heads.
        count: R, 1 to L.
        how: by attention, "uniform", or "topk", the R largest weights.
        generator: of the draws.

    Returns:
        (N, R) int64.

    Raises:
        UserError: negative weights, a count outside 1 to L.
    """
    check_floats(attention=attention)
    if attention.dim() != 2 or 0 in attention.shape or not bool((attention >= 0).all()):
        raise UserError(f"attention needs the shape (N, L) and no negative weight, got {tuple(attention.shape)}")
    if not 1 <= count <= attention.shape[1]:
        raise UserError(f"regions={count}: from 1 to the {attention.shape[1]} patches of a view")
    if how == "topk":
        return attention.topk(count, 1).indices
    chance = torch.ones_like(attention) if how == "uniform" else attention
    return torch.multinomial(chance.float().clamp_min(1e-12), count, generator=generator)


def region_windows(anchors: Tensor, grid: Sequence[int], size: int = 3) -> Tensor:
    """Weights of the tokens in a window of size x size tokens around every anchor, clipped at the grid's border.

    Args:
        anchors: (N, R) int64, numbers of tokens in raster order.
        grid: tokens along (rows, columns).
        size: w, odd.

    Returns:
        (N, R, L) float32, rows of 1 / (tokens of the window) that sum to 1.

    Raises:
        UserError: anchors outside the grid, an even size.
    """
    rows, columns = grid
    if anchors.dim() != 2 or anchors.dtype != torch.int64 or not anchors.numel():
        raise UserError(f"anchors need the shape (N, R) and type int64, got {tuple(anchors.shape)} {anchors.dtype}")
    if int(anchors.min()) < 0 or int(anchors.max()) >= rows * columns or size < 1 or size % 2 == 0:
        raise UserError(f"anchors must lie in a grid of {rows} x {columns} tokens, and the window {size} be odd")
    places = torch.arange(rows * columns, device=anchors.device)
    near_row = (places // columns - anchors[..., None] // columns).abs() <= size // 2
    near_column = (places % columns - anchors[..., None] % columns).abs() <= size // 2
    inside = (near_row & near_column).float()
    return inside / inside.sum(2, keepdim=True)


@in_float32
def region_means(tokens: Tensor, windows: Tensor) -> Tensor:
    """Mean token of every region: (N, L, D) tokens and (N, R, L) windows -> (N, R, D)."""
    check_floats(tokens=tokens, windows=windows)
    fits = tokens.dim() == windows.dim() == 3 and tokens.shape[:2] == (len(windows), windows.shape[2])
    if not fits or 0 in tokens.shape:
        raise UserError(
            f"tokens (N, L, D) and windows (N, R, L) don't fit: {tuple(tokens.shape)}, {tuple(windows.shape)}"
        )
    return windows.to(tokens.dtype) @ tokens


@in_float32
def counterparts(queries: Tensor, tokens: Tensor, *, temperature: float = 0.1) -> tuple[Tensor, Tensor]:
    """Where a region lies in the other view: r'_k = sum_j alpha_kj T_j with alpha = softmax_j(cos(q_k, T_j) / tau_c).

    Args:
        queries: q (N, R, D), teacher's mean tokens of the regions.
        tokens: T (N, L, D), teacher's tokens of the other view; their order doesn't matter.
        temperature: tau_c, above 0; towards 0 the most similar token is taken.

    Returns:
        r' (N, R, D), and the largest alpha of each region (N, R): how sure the match is.

    Raises:
        UserError: shapes that don't fit, a temperature that isn't above 0.
    """
    check_floats(queries=queries, tokens=tokens)
    check_positive(temperature=temperature)
    fits = queries.dim() == tokens.dim() == 3 and len(queries) == len(tokens) and queries.shape[2] == tokens.shape[2]
    if not fits or 0 in queries.shape or 0 in tokens.shape:
        raise UserError(f"queries (N, R, D), tokens (N, L, D) don't fit: {tuple(queries.shape)}, {tuple(tokens.shape)}")
    alike = unit(queries) @ unit(tokens).transpose(1, 2)
    alpha = (alike / temperature).softmax(2)
    return alpha @ tokens, alpha.amax(2)


@in_float32
def glare_regional(
    student: Tensor,
    teacher: Tensor,
    *,
    center: Tensor | None = None,
    student_temperature: float | Tensor = 0.1,
    teacher_temperature: float | Tensor = 0.04,
    weight: Tensor | None = None,
) -> Tensor:
    """GLARE's regional term: L_R = mean over views, images and regions of H(P_t(r'_k), P_s(r_k)).

    Args:
        student: logits of r_k, (U, N, R, K).
        teacher: logits of the counterparts r'_k, of the same shape; a constant.
        center: (K,) of the teacher's regions; None is 0.
        student_temperature, teacher_temperature: above 0.
        weight: (U, N, R), such as the largest alpha, where views may not overlap; None counts all alike.

    Returns:
        A scalar >= 0; log K for uniform logits.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a temperature that isn't above 0.
    """
    check_floats(student=student, teacher=teacher, center=center, weight=weight)
    check_positive(student_temperature=student_temperature, teacher_temperature=teacher_temperature)
    if student.dim() != 4 or student.shape != teacher.shape or 0 in student.shape:
        shapes = [tuple(t.shape) for t in (student, teacher)]
        raise UserError(f"regions of student and teacher need one shape (U, N, R, K), got {shapes}")
    if (center is not None and center.shape != student.shape[3:]) or (
        weight is not None and weight.shape != student.shape[:3]
    ):
        raise UserError("regions: the centre needs the shape (K,), the weight (U, N, R)")
    logits = teacher.detach() - (0 if center is None else center.detach())
    targets = (logits / teacher_temperature).softmax(3)
    each = -(targets * (student / student_temperature).log_softmax(3)).sum(3)
    return each.mean() if weight is None else (each * weight.detach()).mean()


def glare(
    student: Crops,
    teacher: Crops,
    student_patches: Tensor,
    teacher_patches: Tensor,
    mask: Tensor,
    student_regions: Tensor,
    teacher_regions: Tensor,
    *,
    centers: Sequence[Tensor | None] = (None, None, None),
    student_temperature: float | Tensor = 0.1,
    teacher_temperature: float | Tensor = 0.04,
    lambda_global: float = 1.0,
    lambda_local: float = 1.0,
    lambda_regional: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """GLARE (Ebouky et al., arXiv 2509.17816): L = L_G + lambda_L L_L + lambda_R L_R.

    L_G is :func:`dino` of the class tokens of two views, L_L :func:`ibot_patches` of the perturbed patches, which the
    student sees changed and the teacher clean, L_R :func:`glare_regional`.

    Args:
        student, teacher: class-token logits (2, N, K).
        student_patches, teacher_patches: (2, N, L, K).
        mask: (2, N, L) bool, perturbed patches.
        student_regions, teacher_regions: (2, N, R, K).
        centers: of class tokens, patches and regions, (K,) each.
        student_temperature, teacher_temperature: above 0.
        lambda_global, lambda_local, lambda_regional: weights.
        weight: (2, N, R) of the regions.

    Returns:
        A scalar >= 0.

    Raises:
        UserError: (a ``ValueError``) as the parts raise it.
    """
    return glare_terms(
        student, teacher, student_patches, teacher_patches, mask, student_regions, teacher_regions, centers=centers,
        student_temperature=student_temperature, teacher_temperature=teacher_temperature, lambda_global=lambda_global,
        lambda_local=lambda_local, lambda_regional=lambda_regional, weight=weight,
    )["loss"]  # fmt: skip


def glare_terms(
    student: Crops,
    teacher: Crops,
    student_patches: Tensor,
    teacher_patches: Tensor,
    mask: Tensor,
    student_regions: Tensor,
    teacher_regions: Tensor,
    *,
    centers: Sequence[Tensor | None] = (None, None, None),
    student_temperature: float | Tensor = 0.1,
    teacher_temperature: float | Tensor = 0.04,
    lambda_global: float = 1.0,
    lambda_local: float = 1.0,
    lambda_regional: float = 1.0,
    weight: Tensor | None = None,
) -> dict[str, Tensor]:
    """:func:`glare` with its terms: ``loss``, ``global``, ``local``, ``regional``, and DINO's ``teacher_entropy``."""
    if len(centers) != 3:
        raise UserError(f"centers: three of them, of class tokens, patches and regions; got {len(centers)}")
    tau = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
    whole = dino_terms(student, teacher, center=centers[0], **tau)
    local = ibot_patches(student_patches, teacher_patches, mask, center=centers[1], **tau)
    regional = glare_regional(student_regions, teacher_regions, center=centers[2], weight=weight, **tau)
    loss = lambda_global * whole["loss"] + lambda_local * local + lambda_regional * regional
    found = {"loss": loss, "global": whole["loss"], "local": local, "regional": regional}
    return found | {"teacher_entropy": whole["teacher_entropy"]}
