"""MAE: restore the hidden patches of an image (He et al., CVPR 2022, arXiv 2111.06377).

t <- (t - mean(t)) / sqrt(var(t) + 1e-6)          per patch, over its P = p p C values, var with divisor P - 1
L = sum_{b,l} m_bl mean_k (pred_blk - t_blk)^2 / sum m,         m = 1 where a patch was hidden
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, in_float32

__all__ = ["mae", "mae_pixels", "mae_target"]


@torch.no_grad()
def mae_target(patches: Tensor, *, norm_pix: bool = True, eps: float = 1e-6) -> Tensor:
    """What MAE restores: the pixels of each patch, with the patch's own mean and deviation taken out (``norm_pix``).

    Args:
        patches: (N, L, P).
        norm_pix: off gives the pixels as they are.
        eps: under the root, so that a patch of one colour stays finite.

    Returns:
        (N, L, P), at least float32, without gradient.

    Raises:
        UserError: (a ``ValueError``) another shape, or a patch of one value with ``norm_pix``.
    """
    check_floats(patches=patches)
    if patches.dim() != 3:
        raise UserError(f"patches need the shape (batch, patches, values), got {tuple(patches.shape)}")
    pixels = patches.to(torch.promote_types(patches.dtype, torch.float32))
    if not norm_pix:
        return pixels
    if pixels.shape[2] < 2:
        raise UserError("a patch of one value can't be normalised; use larger patches or norm_pix=False")
    mean, variance = pixels.mean(2, keepdim=True), pixels.var(2, keepdim=True)
    return (pixels - mean) / (variance + eps).sqrt()


@in_float32
def mae(prediction: Tensor, patches: Tensor, mask: Tensor, *, norm_pix: bool = True) -> Tensor:
    """MAE's loss: the mean squared error of the hidden patches of the whole batch.

    Args:
        prediction: (N, L, P) of all patches.
        patches: (N, L, P) their pixels; see :func:`selftaught.networks.patchify` (MAE's own code has channels last).
        mask: (N, L), True or 1 where a patch was hidden.
        norm_pix: compare with :func:`mae_target`'s normalised pixels.

    Returns:
        A scalar >= 0; 0 where nothing is hidden.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, integers where values are needed.
    """
    check_floats(prediction=prediction, patches=patches)
    if prediction.dim() != 3 or prediction.shape != patches.shape or mask.shape != prediction.shape[:2]:
        shapes = [tuple(t.shape) for t in (prediction, patches, mask)]
        raise UserError(f"prediction, patches and mask need shapes (N, L, P), (N, L, P) and (N, L), got {shapes}")
    weight = mask.to(prediction.dtype)
    error = (prediction - mae_target(patches, norm_pix=norm_pix)).square().mean(2)
    return (error * weight).sum() / weight.sum().clamp_min(1)


@in_float32
def mae_pixels(prediction: Tensor, image: Tensor, mask: Tensor, *, ratio: float = 0.75) -> Tensor:
    """The loss of the small experiments of arXiv 2503.02844: mean over all pixels of m (pred - x)^2, over the ratio.

    Equal to :func:`mae` without ``norm_pix`` where exactly r L patches of each image are hidden.

    Args:
        prediction: (N, C, H, W).
        image: (N, C, H, W).
        mask: (N, H, W) or (N, C, H, W), True or 1 where a pixel was hidden.
        ratio: r.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, integers where values are needed, a ratio not above 0.
    """
    check_floats(prediction=prediction, image=image)
    check_positive(ratio=ratio)
    if prediction.dim() != 4 or prediction.shape != image.shape:
        shapes = [tuple(t.shape) for t in (prediction, image)]
        raise UserError(f"prediction and image need one shape (N, C, H, W), got {shapes}")
    if mask.shape not in (image.shape, image.shape[:1] + image.shape[2:]):
        raise UserError(f"the mask needs the shape (N, H, W) or (N, C, H, W) of the image, got {tuple(mask.shape)}")
    weight = (mask if mask.dim() == 4 else mask[:, None]).to(prediction.dtype)
    return (weight * (prediction - image.detach()).square()).mean() / ratio
