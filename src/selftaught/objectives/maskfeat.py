"""MaskFeat: histograms of oriented gradients of the hidden patches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, in_float32
from selftaught.objectives._masked import masked_prediction

__all__ = ["hog", "hog_targets", "maskfeat"]


@in_float32
@torch.no_grad()
def hog(images: Tensor, *, bins: int = 9, cell: int = 8, window: int = 16) -> Tensor:
    """Histograms of oriented gradients of every channel (Dalal and Triggs 2005), as MaskFeat takes them.

    Sobel gradients (reflected at the border); the orientation, without sign, falls into one of ``bins`` equal parts of
    pi; every pixel adds its gradient's length, weighted by a Gaussian over each window of ``window`` pixels (deviation
    half of it); the histogram of a cell is brought to length 1.

    Args:
        images: (B, C, H, W).
        bins: orientations.
        cell: side of a cell in pixels; divides H and W.
        window: side of the Gaussian windows, which are laid side by side; 0 weighs all pixels alike.

    Returns:
        (B, C, bins, H / cell, W / cell), without gradient; 0 where a cell is flat.

    Raises:
        UserError: (a ``ValueError``) another shape, sides that ``cell`` or ``window`` doesn't divide.
    """
    check_floats(images=images)
    if images.dim() != 4 or 0 in images.shape or min(images.shape[2:]) < 2:
        raise UserError(f"images need the shape (B, C, H, W), H and W of 2 or more, got {tuple(images.shape)}")
    height, width = images.shape[2:]
    if bins < 1 or cell < 1 or window < 0 or any(side % cell or (window and side % window) for side in (height, width)):
        raise UserError(
            f"hog: cell={cell} and window={window} must divide images of {height}x{width}; bins={bins} >= 1"
        )
    x = F.pad(images.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="reflect")
    sobel = images.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    gradient = F.conv2d(x, torch.stack([sobel, sobel.T])[:, None])
    length, angle = gradient.norm(dim=1), torch.atan2(gradient[:, 0], gradient[:, 1])
    place = (angle / math.pi * bins).floor().long() % bins
    if window:
        length = length * _gaussian(window, length).repeat(height // window, width // window)
    spread = torch.zeros(len(length), bins, height, width, dtype=length.dtype, device=length.device)
    spread.scatter_(1, place[:, None], length[:, None])
    cells = F.avg_pool2d(spread, cell) * cell**2
    return F.normalize(cells, dim=1).unflatten(0, images.shape[:2])


def _gaussian(window: int, like: Tensor) -> Tensor:
    """Weights (window, window) that sum to 1, deviation half the window."""
    place = torch.arange(window, dtype=like.dtype, device=like.device) - (window - 1) / 2
    one = (-0.5 * (place / max(1, window // 2)) ** 2).exp()
    whole = one[:, None] * one
    return whole / whole.sum()


@torch.no_grad()
def hog_targets(images: Tensor, patch: int = 16, *, bins: int = 9, cell: int = 8, window: int = 16) -> Tensor:
    """MaskFeat's targets: the histograms of the cells of every patch, behind one another.

    Args:
        images: (B, C, H, W).
        patch: side of a patch in pixels, a multiple of ``cell``.
        bins, cell, window: see :func:`hog`.

    Returns:
        (B, L, C bins (patch / cell)^2): channels, then orientations, then the cells row by row; 108 numbers for RGB,
        9 orientations and patches of 2 x 2 cells.

    Raises:
        UserError: (a ``ValueError``) a patch that isn't a multiple of the cell, sides that it doesn't divide.
    """
    found = hog(images, bins=bins, cell=cell, window=window).flatten(1, 2)
    side = patch // cell
    if side < 1 or patch % cell or any(length % side for length in found.shape[2:]):
        shape = "x".join(map(str, images.shape[2:]))
        raise UserError(f"patch={patch} isn't a multiple of cell={cell}, or doesn't divide images of {shape}")
    return F.unfold(found, side, stride=side).transpose(1, 2)


def maskfeat(prediction: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """MaskFeat (Wei et al., CVPR 2022, arXiv 2112.09133): the mean squared error of the hidden patches' features.

        L = mean over hidden i  mean_d (y_id - t_id)^2

    Args:
        prediction: y (B, L, D) of all patches.
        targets: t (B, L, D), :func:`hog_targets` or features of a teacher; constants.
        mask: (B, L) bool, True where a patch was hidden.

    Returns:
        A scalar >= 0.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, a mask that isn't bool or hides nothing.
    """
    return masked_prediction(prediction, targets, mask)
