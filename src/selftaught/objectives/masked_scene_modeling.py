"""Masked Scene Modeling: hidden voxels predict, at every level, what a teacher sees in the other view (2504.06719).

    L = 1/2 sum over views  1/|levels| sum over levels  1/|M_l| sum over i in M_l  d(s_li, t_li)

M_l are the hidden voxels of level l that have a partner in the other view (:func:`match_voxels`); levels without any
are left out of the mean. The published account doesn't fix d; the sheet's reconstruction, and the default here, is

    d = - sum_k q_k log softmax(s / 0.1)_k,     q of Sinkhorn-Knopp, or softmax((t - c) / tau_t)

and beside it a cosine and a squared distance, MSC's contrast (2303.14191) and the restoring of the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, check_positive, check_views, in_float32, unit
from selftaught.objectives.swav import sinkhorn

__all__ = [
    "average_levels",
    "masked_scene_contrast",
    "masked_scene_cosine",
    "masked_scene_input",
    "masked_scene_modeling",
    "masked_scene_mse",
    "masked_scene_prototypes",
    "masked_scene_targets",
    "match_voxels",
    "teacher_temperature",
]

_ROWS = 2048
Views = Sequence[Sequence[Tensor]]


def masked_scene_modeling(
    students: Views,
    teachers: Views,
    *,
    temperature: float = 0.1,
    target_temperature: float = 0.04,
    targets: str = "sinkhorn",
    centers: Sequence[Tensor] | None = None,
    iterations: int = 3,
) -> Tensor:
    """The objective with prototypes: see the top of this file.

    Args:
        students: per view and level (|M_l|, K) logits of hidden voxels; cosines with prototypes in [-1, 1].
        teachers: likewise the teacher's logits at their partners; constants.
        temperature: of the student (0.1).
        target_temperature: tau_t; see :func:`teacher_temperature`.
        targets: "sinkhorn" or "centre".
        centers: (K,) per level, for "centre"; None is 0.
        iterations: of Sinkhorn-Knopp.

    Returns:
        A scalar >= 0; 0 where no level of no view has a partner.

    Raises:
        UserError: other numbers of views or levels, shapes that don't fit, a temperature that isn't above 0.
    """
    if len(students) != len(teachers) or any(len(s) != len(t) for s, t in zip(students, teachers, strict=True)):
        raise UserError("student and teacher need the same views, and in each the same levels")
    found = []
    for student, teacher in zip(students, teachers, strict=True):
        terms: list[Tensor | None] = []
        for at, (s, t) in enumerate(zip(student, teacher, strict=True)):
            if s.dim() == 2 and s.shape == t.shape and not len(s):
                terms.append(None)
                continue
            center = None if centers is None else centers[at]
            q = masked_scene_targets(
                t, temperature=target_temperature, targets=targets, center=center, iterations=iterations
            )
            terms.append(masked_scene_prototypes(s, q, temperature=temperature))
        found.append(terms)
    return average_levels(found)


def average_levels(terms: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """The mean over views of the mean over the levels that have a term.

    Args:
        terms: per view and level a scalar, or None for a level without matched voxels.

    Returns:
        A scalar; 0 where there is no term at all. A view without any is left out.

    Raises:
        UserError: a term that is no scalar.
    """
    kept = [[t for t in view if t is not None] for view in terms]
    if any(t.dim() or not t.is_floating_point() for view in kept for t in view):
        raise UserError("terms of levels are scalars of floating-point values")
    means = [torch.stack(view).mean() for view in kept if view]
    return torch.stack(means).mean() if means else torch.zeros(())


@in_float32
@torch.no_grad()
def masked_scene_targets(
    logits: Tensor,
    *,
    temperature: float = 0.04,
    targets: str = "sinkhorn",
    center: Tensor | None = None,
    iterations: int = 3,
) -> Tensor:
    """q (M, K), rows summing to 1, of a teacher's logits.

    sinkhorn: prototypes share the voxels evenly (:func:`sinkhorn`); centre: softmax((t - c) / tau).

    Args:
        logits: (M, K), M of 1 or more.
        temperature: tau, above 0.
        targets: "sinkhorn" or "centre".
        center: (K,) of "centre"; None is 0. Move it with :func:`dino_center`.
        iterations: of Sinkhorn-Knopp.

    Raises:
        UserError: shapes that don't fit, a temperature that isn't above 0, an unknown choice.
    """
    check_choice("targets", targets, ("sinkhorn", "centre"))
    check_views(logits)
    check_positive(temperature=temperature)
    check_floats(center=center)
    if targets == "sinkhorn":
        return sinkhorn(logits, eps=temperature, iters=iterations)
    if center is not None and center.shape != logits.shape[1:]:
        raise UserError(f"center needs the shape ({logits.shape[1]},), got {tuple(center.shape)}")
    return ((logits if center is None else logits - center) / temperature).softmax(1)


@in_float32
def masked_scene_prototypes(student: Tensor, q: Tensor, *, temperature: float = 0.1) -> Tensor:
    """mean_i - sum_k q_ik log softmax(s_i / tau)_k; at least the mean entropy of q.

    Args:
        student: (M, K) logits.
        q: (M, K) from :func:`masked_scene_targets`.
        temperature: tau, above 0.

    Raises:
        UserError: shapes that differ, no rows, a temperature that isn't above 0.
    """
    check_views(student, q)
    check_positive(temperature=temperature)
    return cross_entropy(student / temperature, q)


@in_float32
def masked_scene_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """mean_i 2 - 2 <p_i / |p_i|, sg(t_i / |t_i|)>, in [0, 4].

    Args:
        prediction: (M, D) of the predictor.
        target: (M, D) of the teacher, a constant.

    Raises:
        UserError: shapes that differ, no rows.
    """
    check_views(prediction, target)
    return 2 - 2 * (unit(prediction) * unit(target.detach())).sum(1).mean()


@in_float32
def masked_scene_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """mean over voxels and channels of (p - sg(t))^2; arguments as :func:`masked_scene_cosine`."""
    check_views(prediction, target)
    return (prediction - target.detach()).square().mean()


@in_float32
def masked_scene_contrast(prediction: Tensor, target: Tensor, *, temperature: float = 0.4) -> Tensor:
    """MSC's baseline: a voxel's partner in the other view against the partners of all others (InfoNCE).

        mean_i - log exp(<p_i, t_i> / tau) / sum_j exp(<p_i, t_j> / tau),     p and t of length 1

    Args:
        prediction: (M, D), M of 2 or more.
        target: (M, D), a constant.
        temperature: tau (0.4 in MSC), above 0.

    Raises:
        UserError: shapes that differ, a single row, a temperature that isn't above 0.
    """
    check_views(prediction, target, minimum=2, why=" (one voxel has no negatives)")
    check_positive(temperature=temperature)
    p, t = unit(prediction), unit(target.detach())
    return cross_entropy(p @ t.T / temperature, torch.arange(len(p), device=p.device))


@in_float32
def masked_scene_input(prediction: Tensor, features: Tensor) -> Tensor:
    """The baseline that restores what was hidden: squared error of colour, 1 - cosine of normals.

    Args:
        prediction: (M, 6) for hidden voxels.
        features: (M, 6): colour in [-1, 1] and normal; a normal of length 0 isn't known and costs nothing.

    Raises:
        UserError: shapes that differ, or not 6 columns.
    """
    if check_views(prediction, features)[1] != 6:
        raise UserError(f"colour and normal are 6 columns, got {prediction.shape[1]}")
    colour = (prediction[:, :3] - features[:, :3]).square().mean()
    known = features[:, 3:].norm(dim=1) > 0.5
    cosine = (unit(prediction[:, 3:]) * features[:, 3:]).sum(1)
    return colour + ((1 - cosine) * known).sum() / known.sum().clamp(min=1)


def teacher_temperature(progress: float, start: float = 0.04, end: float = 0.07, warmup: float = 0.1) -> float:
    """tau_t: from ``start`` to ``end`` in a straight line over the first share ``warmup`` of the run, then ``end``.

    Raises:
        UserError: progress outside [0, 1], a temperature that isn't above 0, a negative warm-up.
    """
    check_positive(start=start, end=end)
    if not 0 <= progress <= 1 or warmup < 0:
        raise UserError(f"progress={progress} lies in [0, 1], warmup={warmup} is 0 or more")
    return end if progress >= warmup else start + (end - start) * progress / warmup


@torch.no_grad()
def match_voxels(
    a: Tensor, b: Tensor, radius: float, offset_a: Tensor | None = None, offset_b: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """For the places of one view the nearest of the other, where one lies within ``radius``.

    Args:
        a: (A, 3) true places of one view's voxels.
        b: (B, 3) of the other's.
        radius: largest distance, in their unit; that of one voxel of the level.
        offset_a: (N,) int64, where each scene's rows end; None: one scene.
        offset_b: likewise; as many scenes.

    Returns:
        Rows of ``a`` in ascending order and, for each, the row of ``b``; both (m,) int64.

    Raises:
        UserError: shapes that don't fit, a radius that isn't above 0.
    """
    check_positive(radius=radius)
    check_floats(a=a, b=b)
    offsets = []
    for name, places, offset in (("a", a, offset_a), ("b", b, offset_b)):
        if places.dim() != 2 or places.shape[1] != 3:
            raise UserError(f"{name}: places are (rows, 3), got {tuple(places.shape)}")
        offset = torch.tensor([len(places)]) if offset is None else offset
        whole = offset.dim() == 1 and len(offset) and not offset.is_floating_point()
        if not whole or int(offset[-1]) != len(places) or (torch.diff(offset) < 0).any() or int(offset[0]) < 0:
            raise UserError(f"{name}: offsets are whole numbers (N,) that rise to the {len(places)} rows")
        offsets.append([0, *offset.tolist()])
    if len(offsets[0]) != len(offsets[1]):
        raise UserError(f"{len(offsets[0]) - 1} scenes in a, {len(offsets[1]) - 1} in b")
    rows, partners = [], []
    for k in range(len(offsets[0]) - 1):
        (a0, a1), (b0, b1) = offsets[0][k : k + 2], offsets[1][k : k + 2]
        if a1 == a0 or b1 == b0:
            continue
        far, near = _nearest(a[a0:a1], b[b0:b1])
        kept = (far <= radius).nonzero()[:, 0]
        rows.append(kept + a0)
        partners.append(near[kept] + b0)
    none = torch.zeros(0, dtype=torch.long, device=a.device)
    return torch.cat([none, *rows]), torch.cat([none, *partners])


def _nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Distance and row of the nearest of ``b``: by a k-d tree on the CPU, by blocks of distances elsewhere."""
    if a.device.type == "cpu":
        from scipy.spatial import cKDTree

        far, near = cKDTree(b.double().numpy()).query(a.double().numpy())
        return torch.from_numpy(far), torch.from_numpy(near)
    found = [torch.cdist(part.double(), b.double()).min(1) for part in a.split(_ROWS)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
