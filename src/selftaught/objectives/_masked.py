"""Masked prediction in pixels: what the methods share that fill in the hidden patches of an image, clip or volume."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, in_float32


@torch.no_grad()
def normalised_patches(patches: Tensor, *, channels: int = 1, eps: float = 1e-6) -> Tensor:
    """Pixels of every patch with its own mean and deviation taken out, channel by channel: the targets of VideoMAE.

        y = (x - mean(x)) / (sqrt(var(x)) + eps),      var with divisor P - 1, over the P pixels of one channel

    VideoMAE (arXiv 2203.12602) normalises each channel of a tubelet, MAE (arXiv 2111.06377) the patch as a whole:
    ``channels=1``. (MAE's own code has eps under the root.)

    Args:
        patches: (N, L, C P), channel after channel.
        channels: C.
        eps: keeps a patch of one colour finite; its targets are 0.

    Returns:
        Targets of the same shape, without gradient.

    Raises:
        UserError: (a ``ValueError``) not (N, L, C P), or a patch of one pixel, which has no deviation.
    """
    if patches.dim() != 3 or channels < 1 or patches.shape[2] % channels:
        raise UserError(f"patches need the shape (batch, patches, {channels} x pixels), got {tuple(patches.shape)}")
    pixels = patches.to(torch.promote_types(patches.dtype, torch.float32)).unflatten(2, (channels, -1))
    if pixels.shape[3] < 2:
        raise UserError("a patch of one pixel can't be normalised; use larger patches or the pixels themselves")
    mean, deviation = pixels.mean(3, keepdim=True), pixels.std(3, keepdim=True)
    return ((pixels - mean) / (deviation + eps)).flatten(2)


@in_float32
def masked_prediction(prediction: Tensor, target: Tensor, mask: Tensor, *, kind: str = "l2") -> Tensor:
    """Mean error of the hidden patches alone (MAE, arXiv 2111.06377; VideoMAE, arXiv 2203.12602).

    Args:
        prediction: (N, L, P) of all patches.
        target: (N, L, P), a constant.
        mask: (N, L) bool, True where a patch was hidden.
        kind: "l2" (squared), "l1" (absolute).

    Returns:
        A scalar >= 0, the mean over hidden patches and their values.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, a mask that isn't bool or hides nothing, an unknown kind.
    """
    check_floats(prediction=prediction, target=target)
    check_choice("kind", kind, ("l2", "l1"))
    if prediction.dim() != 3 or prediction.shape != target.shape or mask.shape != prediction.shape[:2]:
        shapes = [tuple(t.shape) for t in (prediction, target, mask)]
        raise UserError(f"prediction, target and mask need shapes (N, L, P), (N, L, P) and (N, L), got {shapes}")
    if mask.dtype != torch.bool or not bool(mask.any()):
        raise UserError("the mask must be bool and hide at least one patch")
    difference = prediction[mask] - target.detach()[mask]
    return difference.square().mean() if kind == "l2" else difference.abs().mean()
