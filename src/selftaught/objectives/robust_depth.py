"""Robust-Depth: depth that holds in any weather (Saunders et al., ICCV 2023, arXiv 2307.08357).

One network sees the clear frame (c) and an altered copy of it (a); both depths warp the clear neighbours onto the clear
frame. Where one of the two explains a pixel best, it teaches the other:

    L_d = lambda / 2^s [ l(d^a, sg d^c, M_c) + l(sg d^a, d^c, M_a) ]
    l(x, y, M) = sum M log(|x - y| + 1) / (sum M + 1e-7)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import in_float32
from selftaught.objectives._photometric import check_maps, edge_smoothness
from selftaught.objectives.monodepth2 import noisy, reprojection_errors, resized

__all__ = [
    "bidirectional_depth_loss",
    "log_difference",
    "pseudo_masks",
    "pseudo_pose_loss",
    "robust_depth",
    "robust_depth_terms",
]

_TINY = 1e-7
_GUARD = 1e6


@in_float32
def log_difference(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """l(x, y, M) = sum M log(|x - y| + 1) / (sum M + 1e-7).

    Args:
        x: (N, 1, H, W).
        y: the same shape.
        mask: the same shape, 0 or 1.

    Raises:
        UserError: shapes that differ.
    """
    check_maps(x=x, y=y)
    if x.shape != y.shape or x.shape != mask.shape:
        raise UserError(f"x {tuple(x.shape)}, y {tuple(y.shape)}, mask {tuple(mask.shape)}: pass three of one shape")
    mask = mask.to(x.dtype)
    return (mask * torch.log1p((x - y).abs())).sum() / (mask.sum() + _TINY)


@in_float32
def pseudo_masks(identity: Tensor, altered: Tensor, clear: Tensor) -> tuple[Tensor, Tensor]:
    """Where the clear branch explains a pixel best (M_c), and where the altered one does (M_a).

    k = argmin over the ordered errors (identity, altered, clear); M_c = 1 where k is a clear one, M_a where an altered.

    Args:
        identity: (N, F, H, W) errors of the frames as they stand, with their noise; F = 0 leaves them out.
        altered: (N, F, H, W) errors of frames warped by the altered branch's depth.
        clear: (N, F, H, W) errors of frames warped by the clear branch's depth.

    Returns:
        M_c and M_a, bool (N, 1, H, W).

    Raises:
        UserError: shapes that don't fit.
    """
    check_maps(altered=altered, clear=clear)
    if altered.shape != clear.shape or identity.dim() != 4:
        raise UserError(
            f"altered {tuple(altered.shape)} and clear {tuple(clear.shape)}: pass errors (N, F, H, W) of one shape"
        )
    if len(identity) != len(clear) or identity.shape[2:] != clear.shape[2:]:
        raise UserError(f"identity {tuple(identity.shape)}: pass (N, F, H, W) of the others' size {tuple(clear.shape)}")
    still, frames = identity.shape[1], altered.shape[1]
    best = torch.cat((identity, altered, clear), 1).argmin(1, keepdim=True)
    return best >= still + frames, (best >= still) & (best < still + frames)


@in_float32
def bidirectional_depth_loss(
    altered: Tensor, clear: Tensor, clear_best: Tensor, altered_best: Tensor, *, weight: float = 0.01, scale: int = 0
) -> Tensor:
    """lambda / 2^s [ l(d^a, sg d^c, M_c) + l(sg d^a, d^c, M_a) ].

    Args:
        altered: d^a, sigmoid disparities (N, 1, h, w) of scale s.
        clear: d^c, the same shape.
        clear_best: M_c (N, 1, H, W) at any size; the nearest pixel is taken.
        altered_best: M_a, likewise.
        weight: lambda (default 0.01).
        scale: s.

    Raises:
        UserError: shapes that don't fit.
    """
    check_maps(altered=altered, clear=clear)
    fits = clear_best.dim() == 4 and clear_best.shape[:2] == clear.shape[:2] and clear_best.numel() > 0
    if altered.shape != clear.shape or clear_best.shape != altered_best.shape or not fits:
        raise UserError(
            f"altered {tuple(altered.shape)}, clear {tuple(clear.shape)}: pass two of one shape and their masks"
        )
    size = altered.shape[2:]
    mc, ma = (F.interpolate(m.to(altered.dtype), size=size, mode="nearest") for m in (clear_best, altered_best))
    to_altered = log_difference(altered, clear.detach(), mc)
    to_clear = log_difference(altered.detach(), clear, ma)
    return weight / 2**scale * (to_altered + to_clear)


@in_float32
def pseudo_pose_loss(
    altered_angle: Tensor, altered_shift: Tensor, clear_angle: Tensor, clear_shift: Tensor, *, weight: float = 0.01
) -> Tensor:
    """lambda/2 mean |angle^a - sg angle^c| + lambda/2 mean |shift^a - sg shift^c|; the clear pose gets no gradient.

    Args:
        altered_angle: (N, slots, 3) axis-angle of the altered branch.
        altered_shift: (N, slots, 3) translation of the altered branch.
        clear_angle: the clear branch's.
        clear_shift: the clear branch's.
        weight: lambda (default 0.01).

    Raises:
        UserError: shapes that differ.
    """
    check_maps(
        3, altered_angle=altered_angle, altered_shift=altered_shift, clear_angle=clear_angle, clear_shift=clear_shift
    )
    if not altered_angle.shape == clear_angle.shape == altered_shift.shape == clear_shift.shape:
        raise UserError(f"altered_angle {tuple(altered_angle.shape)}: pass four tensors of one shape (N, slots, 3)")
    angle = (altered_angle - clear_angle.detach()).abs().mean()
    return weight / 2 * (angle + (altered_shift - clear_shift.detach()).abs().mean())


def robust_depth(*args: Any, **options: Any) -> Tensor:
    """Robust-Depth's loss without its pose term; see :func:`robust_depth_terms` for what goes in."""
    return robust_depth_terms(*args, **options)["loss"]


def robust_depth_terms(
    clear: Mapping[int, Tensor],
    altered: Mapping[int, Tensor],
    clear_warped: Mapping[int, Tensor],
    altered_warped: Mapping[int, Tensor],
    target: Tensor,
    sources: Tensor,
    *,
    weight: float = 0.01,
    smoothness: float = 1e-3,
    one_minimum: bool = False,
    depth_loss: bool = True,
    automask: bool = True,
    skipped: Tensor | None = None,
    altered_target: Tensor | None = None,
    alpha: float = 0.85,
    noise: Tensor | None = None,
) -> dict[str, Tensor]:
    """Photometric terms of both branches, the bi-directional depth loss and smoothness; means over the scales.

    Args:
        clear: scale s -> d^c_s (N, 1, H / 2^s, W / 2^s), sigmoid disparities, cropped where the alteration was scaled.
        altered: scale s -> d^a_s, its alteration undone.
        clear_warped: scale -> clear neighbours warped by d^c, (F, N, C, H, W) in [0, 1].
        altered_warped: scale -> clear neighbours warped by d^a.
        target: the clear frame (N, C, H, W).
        sources: the clear neighbours as they stand, (F, N, C, H, W).
        weight: lambda of the depth loss (default 0.01).
        smoothness: of both disparities against the clear frame (default 1e-3).
        one_minimum: the mean of one minimum over all six errors in place of two minima (``one_optim``).
        depth_loss: whether L_d is there.
        automask: whether frames as they stand take part.
        skipped: bool (N,): samples without smoothness; the mean is still over all N.
        altered_target: what the altered branch's frames are compared with; None: the clear frame (``warp_clear``).
        alpha: share of SSIM.
        noise: of the automask, drawn once for all scales; None draws it.

    Returns:
        ``loss``, ``photometric``, ``depth``, ``smoothness``, ``clear_best`` and ``altered_best`` (shares of pixels).

    Raises:
        UserError: scales or shapes that don't fit.
    """
    if not set(clear) == set(altered) == set(clear_warped) == set(altered_warped) or not clear:
        raise UserError("clear, altered, clear_warped and altered_warped: pass the same scales in all four")
    check_maps(target=target)
    if skipped is not None and (skipped.shape != target.shape[:1] or skipped.dtype != torch.bool):
        raise UserError(f"skipped: shape {tuple(skipped.shape)}; pass bool ({len(target)},)")
    still = reprojection_errors(sources, target, alpha=alpha)
    still = noisy(still, noise) if automask else still[:, :0]
    rows: dict[str, list[Tensor]] = {name: [] for name in ("photometric", "depth", "smoothness", "mc", "ma")}
    for s in clear:
        a = reprojection_errors(altered_warped[s], target if altered_target is None else altered_target, alpha=alpha)
        c = reprojection_errors(clear_warped[s], target, alpha=alpha)
        rows["photometric"].append(_photometric(still, a, c, one_minimum))
        mc, ma = pseudo_masks(still, a, c)
        guard = _GUARD * ((altered[s] <= 0).sum() + (clear[s] <= 0).sum())
        depth = bidirectional_depth_loss(altered[s], clear[s], mc, ma, weight=weight, scale=s)
        rows["depth"].append(depth + guard if depth_loss else torch.zeros_like(depth))
        picture = resized(target, clear[s].shape[2:])
        smooth = edge_smoothness(altered[s], picture, each=True) + edge_smoothness(clear[s], picture, each=True)
        smooth = smooth if skipped is None else torch.where(skipped, 0, smooth)
        rows["smoothness"].append(smoothness / 2**s * smooth.mean())
        rows["mc"].append(mc.float().mean())
        rows["ma"].append(ma.float().mean())
    photometric, depth, smooth, mc, ma = (torch.stack(values).mean() for values in rows.values())
    return {
        "loss": photometric + depth + smooth, "photometric": photometric, "depth": depth, "smoothness": smooth,
        "clear_best": mc, "altered_best": ma,
    }  # fmt: skip


def _photometric(still: Tensor, altered: Tensor, clear: Tensor, one_minimum: bool) -> Tensor:
    if one_minimum:
        return torch.cat((still, altered, clear), 1).amin(1).mean()
    return torch.cat((still, altered), 1).amin(1).mean() + torch.cat((still, clear), 1).amin(1).mean()
