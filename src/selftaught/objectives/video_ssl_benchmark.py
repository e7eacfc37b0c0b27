"""Distillation of several pretext networks into one (arXiv 2504.06153): our reconstruction, for the paper leaves the
formula open.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_positive, check_views, in_float32, unit

__all__ = ["pretext_distillation", "pretext_distillation_terms", "video_ssl_benchmark"]

KINDS = ("kl", "cross_entropy", "mse")


@in_float32
def pretext_distillation(student: Tensor, teacher: Tensor, *, kind: str = "kl", temperature: float = 4.0) -> Tensor:
    """How far a student's features are from one frozen teacher's.

        kl:             T^2 mean_i sum_d p_id log(p_id / q_id),  p = softmax(teacher / T), q = softmax(student / T)
        cross_entropy:  -T^2 mean_i sum_d p_id log q_id
        mse:            mean_i ||s_i / |s_i| - t_i / |t_i| ||^2

    Args:
        student: (N, D), the student's projection for this teacher.
        teacher: (N, D) features; a constant.
        kind: kl, cross_entropy or mse.
        temperature: T of the softmax, above 0 (default 4).

    Raises:
        UserError: shapes that differ, another kind, a temperature that isn't above 0.
    """
    check_views(student, teacher)
    check_choice("kind", kind, KINDS)
    check_positive(temperature=temperature)
    teacher = teacher.detach()
    if kind == "mse":
        return (unit(student) - unit(teacher)).square().sum(1).mean()
    logq, p = log_softmax(student / temperature, dim=1), softmax(teacher / temperature, dim=1)
    loss = -(p * logq).sum(1).mean()
    if kind == "kl":
        loss = loss + (p * log_softmax(teacher / temperature, dim=1)).sum(1).mean()
    return temperature**2 * loss


def pretext_distillation_terms(
    students: Sequence[Tensor], teachers: Sequence[Tensor], *, kind: str = "kl", temperature: float = 4.0
) -> dict[str, Tensor]:
    """The mean over teachers as ``loss``, and each one's own part as ``teacher 1``, ``teacher 2`` ...

    Args:
        students: a projection (N, D_k) for each teacher.
        teachers: features (N, D_k) of each.
        kind: see :func:`pretext_distillation`.
        temperature: likewise.

    Raises:
        UserError: no teacher, or another number of projections.
    """
    if not teachers or len(students) != len(teachers):
        raise UserError(f"{len(students)} projections for {len(teachers)} teachers: give one for each, at least one")
    for one in students:
        if one.ndim != 2 or one.shape[:1] != students[0].shape[:1]:
            shapes = ", ".join(str(tuple(student.shape)) for student in students)
            raise UserError(f"the projections need the shape (N, D) with as many rows, got {shapes}")
    parts = [
        pretext_distillation(s, t, kind=kind, temperature=temperature) for s, t in zip(students, teachers, strict=True)
    ]
    shown = {f"teacher {k}": part.detach() for k, part in enumerate(parts, start=1)}
    return {"loss": torch.stack(parts).mean()} | shown


def video_ssl_benchmark(
    students: Sequence[Tensor], teachers: Sequence[Tensor], *, kind: str = "kl", temperature: float = 4.0
) -> Tensor:
    """The mean over teachers of :func:`pretext_distillation`; see :func:`pretext_distillation_terms`."""
    return pretext_distillation_terms(students, teachers, kind=kind, temperature=temperature)["loss"]
