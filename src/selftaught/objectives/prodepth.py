"""ProDepth: multi-frame depth that isn't fooled by what moves (Woo et al., ECCV 2024, arXiv 2407.09303).

    L_ph = sum pe m / (sum m + 1e-7),  m = w 1[w > .4] (1 - a)       L_multi = mean over scales of L_ph + L_cons + L_sm
    L_cons = .1 mean |disp - disp_mono| (1 - m)                         L = L_multi + .3 L_cv
    L_cv = sum pe(cvf) (1 - a) / (sum (1 - a) + 1e-7)

w says how static a pixel is (the raw match agrees with the single frame), a marks samples whose matching was disturbed
on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import in_float32
from selftaught.objectives._photometric import check_maps
from selftaught.objectives.monodepth2 import pyramid_smoothness, reprojection_errors

__all__ = [
    "confidence_mask",
    "cost_volume_loss",
    "depth_consistency",
    "heteroscedastic",
    "masked_mean",
    "prodepth",
    "prodepth_terms",
]

_TINY = 1e-7


@in_float32
def masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """sum(error mask) / (sum mask + 1e-7); 0 for an empty mask.

    Raises:
        UserError: shapes that differ.
    """
    check_maps(error=error)
    if error.shape != mask.shape:
        raise UserError(f"error {tuple(error.shape)} and mask {tuple(mask.shape)}: pass two of one shape")
    mask = mask.to(error.dtype)
    return (error * mask).sum() / (mask.sum() + _TINY)


@in_float32
def confidence_mask(weight: Tensor, disturbed: Tensor, *, threshold: float = 0.4, reweighting: bool = True) -> Tensor:
    """m = w 1[w > threshold] (1 - a), without gradient.

    Args:
        weight: w (N, 1, H, W) in [0, 1].
        disturbed: a (N,), 1 for samples hit by matching augmentation.
        threshold: default 0.4.
        reweighting: False leaves w out: m = 1 - a.

    Raises:
        UserError: shapes that don't fit.
    """
    check_maps(weight=weight)
    check_maps(1, disturbed=disturbed)
    if weight.shape[1] != 1 or disturbed.shape != weight.shape[:1]:
        raise UserError(f"weight {tuple(weight.shape)}, disturbed {tuple(disturbed.shape)}: pass (N, 1, H, W) and (N,)")
    w = weight.detach()
    w = w * (w > threshold) if reweighting else torch.ones_like(w)
    return w * (1 - disturbed.to(w.dtype))[:, None, None, None]


@in_float32
def depth_consistency(disparity: Tensor, single: Tensor, mask: Tensor) -> Tensor:
    """mean(|disp_multi - disp_mono| (1 - m)) of scaled disparities; the single frame's gets no gradient.

    Raises:
        UserError: shapes that differ.
    """
    check_maps(disparity=disparity, single=single, mask=mask)
    if disparity.shape != single.shape or disparity.shape != mask.shape:
        shapes = f"{tuple(disparity.shape)}, {tuple(single.shape)}, {tuple(mask.shape)}"
        raise UserError(f"disparity, single and mask: shapes {shapes}; pass three of one shape")
    return ((disparity - single.detach()).abs() * (1 - mask)).mean()


@in_float32
def cost_volume_loss(error: Tensor, disturbed: Tensor) -> Tensor:
    """L_cv = sum pe (1 - a) / (sum(1 - a) + 1e-7) over all pixels.

    Args:
        error: smallest photometric errors (N, 1, H, W) by the raw volume's decoder.
        disturbed: a (N,).

    Raises:
        UserError: shapes that don't fit.
    """
    check_maps(error=error)
    check_maps(1, disturbed=disturbed)
    if error.shape[1] != 1 or disturbed.shape != error.shape[:1]:
        raise UserError(f"error {tuple(error.shape)}, disturbed {tuple(disturbed.shape)}: pass (N, 1, H, W) and (N,)")
    return masked_mean(error, (1 - disturbed.to(error.dtype))[:, None, None, None].expand_as(error))


@in_float32
def heteroscedastic(error: Tensor, sigma: Tensor) -> Tensor:
    """mean(pe / sigma + log sigma): the likelihood by which an error teaches its own size.

    Raises:
        UserError: shapes that differ.
    """
    check_maps(error=error, sigma=sigma)
    if error.shape != sigma.shape:
        raise UserError(f"error {tuple(error.shape)} and sigma {tuple(sigma.shape)}: pass two of one shape")
    return (error / sigma + torch.log(sigma)).mean()


def prodepth(
    disparities: Mapping[int, Tensor], warped: Mapping[int, Tensor], aux_warped: Tensor, target: Tensor,
    scaled: Tensor, single: Tensor, weight: Tensor, disturbed: Tensor,
) -> Tensor:  # fmt: skip
    """ProDepth's loss by the paper's weights; see :func:`prodepth_terms` for what goes in."""
    return prodepth_terms(disparities, warped, aux_warped, target, scaled, single, weight, disturbed)["loss"]


def prodepth_terms(
    disparities: Mapping[int, Tensor],
    warped: Mapping[int, Tensor],
    aux_warped: Tensor,
    target: Tensor,
    scaled: Tensor,
    single: Tensor,
    weight: Tensor,
    disturbed: Tensor,
    *,
    smoothness: float = 1e-3,
    consistency: float = 0.1,
    cv_weight: float = 0.3,
    threshold: float = 0.4,
    reweighting: bool = True,
    alpha: float = 0.85,
) -> dict[str, Tensor]:
    """Terms of the multi-frame stage.

    Args:
        disparities: scale -> sigmoid disparities (N, 1, H / 2^s, W / 2^s).
        warped: scale -> neighbours warped by that scale's depth at full size, (F, N, C, H, W).
        aux_warped: neighbours warped by the depth of the raw volume's decoder, (F, N, C, H, W).
        target: (N, C, H, W).
        scaled: 1 / depth of scale 0 (N, 1, H, W).
        single: 1 / depth of the single-frame network, likewise.
        weight: w (N, 1, H, W), how static each pixel is.
        disturbed: a (N,).
        smoothness: weight of L_sm (default 1e-3, halved with each scale).
        consistency: weight of L_cons (default 0.1).
        cv_weight: weight of L_cv (default 0.3).
        threshold: of the mask.
        reweighting: see :func:`confidence_mask`.
        alpha: share of SSIM.

    Returns:
        ``loss``, ``photometric``, ``consistency``, ``smoothness``, ``cost volume`` and ``static`` (mean of m).

    Raises:
        UserError: scales or shapes that don't fit.
    """
    if set(disparities) != set(warped) or not warped:
        raise UserError(f"disparities of scales {list(disparities)}, warped of {list(warped)}: pass the same scales")
    mask = confidence_mask(weight, disturbed, threshold=threshold, reweighting=reweighting)
    errors = [reprojection_errors(frames, target, alpha=alpha).amin(1, keepdim=True) for frames in warped.values()]
    photometric = torch.stack([masked_mean(error, mask) for error in errors]).mean()
    same = consistency * depth_consistency(scaled, single, mask)
    smooth = pyramid_smoothness(disparities, target, smoothness)
    aux = cost_volume_loss(reprojection_errors(aux_warped, target, alpha=alpha).amin(1, keepdim=True), disturbed)
    return {
        "loss": photometric + same + smooth + cv_weight * aux, "photometric": photometric, "consistency": same,
        "smoothness": smooth, "cost volume": aux, "static": mask.mean(),
    }  # fmt: skip
