"""Uni4Eye: restore intensities and gradients of hidden patches, of pictures and volumes alike (arXiv 2203.04614).

g = sqrt(sum_axes (S_axis * x)^2 + eps^2)
L_I = sum m mean_k (pred^I - P(x))^2 / sum m,      L_G the same with pred^G and P(g),      L = L_I + beta L_G
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, in_float32
from selftaught.objectives.mae import mae

__all__ = ["gradient_map", "uni4eye", "uni4eye_terms"]

_SHARES = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey image of the l1_avg operator."""


@torch.no_grad()
@in_float32
def gradient_map(
    x: Tensor,
    *,
    operator: str = "sobel",
    scale: float = 1 / 8,
    padding: str = "replicate",
    eps: float = 1e-6,
) -> Tensor:
    """How steep images or volumes are at every point, channel by channel: a target, without gradient.

    ``"sobel"``: g = sqrt(sum over axes of (S * x)^2 + eps^2), S the derivative [-1, 0, 1] along its axis and [1, 2, 1]
    along every other, times ``scale``. Without scale (1) a ramp of slope a gives 8 a in 2-D, 32 a in 3-D.
    ``"l1_avg"`` (the successor's loader; images in [0, 1]): of the grey image |g_x| and |g_y| with 5 x 5 kernels, each
    cut off at 1, g their mean; ``scale`` has no part in it.

    Args:
        x: (N, C, H, W) or (N, C, D, H, W), before normalisation patch by patch.
        operator: "sobel" or "l1_avg".
        scale: factor of the kernels; the default keeps g of images in [0, 1] near that range.
        padding: "replicate" or "reflect".
        eps: keeps the root smooth at 0.

    Returns:
        g of the shape of x.

    Raises:
        UserError: (a ``ValueError``) another number of axes, integers, an unknown operator or padding, too small for
            "reflect".
    """
    check_floats(x=x)
    check_choice("operator", operator, ("sobel", "l1_avg"))
    check_choice("padding", padding, ("replicate", "reflect"))
    if x.dim() not in (4, 5):
        raise UserError(f"gradients need images (N, C, H, W) or volumes (N, C, D, H, W), got {tuple(x.shape)}")
    reach = 2 if operator == "l1_avg" else 1
    if padding == "reflect" and min(x.shape[2:]) <= reach:
        raise UserError(f"{tuple(x.shape[2:])} is too small to be reflected; use padding=replicate")
    if operator == "l1_avg":
        return _l1_average(x, padding)
    axes = range(2, x.dim())
    square = torch.stack([_filtered(x, axis, (-1, 0, 1), (1, 2, 1), padding).square() for axis in axes]).sum(0)
    return (scale**2 * square + eps**2).sqrt()


def _filtered(x: Tensor, along: int, derivative: tuple[int, ...], smooth: tuple[int, ...], padding: str) -> Tensor:
    """The separable filter: a derivative along one axis, smoothing along all others."""
    reach, axes = len(smooth) // 2, x.dim() - 2
    found = F.pad(x.flatten(0, 1)[:, None], (reach,) * 2 * axes, mode=padding)
    convolve = F.conv2d if axes == 2 else F.conv3d
    for axis in range(axes):
        taps = torch.tensor(derivative if axis + 2 == along else smooth, dtype=x.dtype, device=x.device)
        shape = [1, 1, *(len(taps) if k == axis else 1 for k in range(axes))]
        found = convolve(found, taps.view(shape))
    return found.view(x.shape)


def _l1_average(x: Tensor, padding: str) -> Tensor:
    if x.dim() != 4:
        raise UserError("operator=l1_avg is of images; use sobel for volumes")
    grey = x.mean(1, keepdim=True)
    if x.shape[1] == len(_SHARES):
        grey = (x * x.new_tensor(_SHARES).view(-1, 1, 1)).sum(1, keepdim=True)
    sides = [_filtered(grey, axis, (-1, -2, 0, 2, 1), (1, 4, 6, 4, 1), padding).abs().clamp_max(1) for axis in (2, 3)]
    return (0.5 * sides[0] + 0.5 * sides[1]).expand_as(x).clone()


@in_float32
def uni4eye(
    intensity: Tensor, gradient: Tensor, patches: Tensor, steepness: Tensor, mask: Tensor, *, beta: float = 1.0,
    norm_pix: bool = False,
) -> Tensor:  # fmt: skip
    """L_I + beta L_G of hidden patches; see :func:`uni4eye_terms`."""
    return uni4eye_terms(intensity, gradient, patches, steepness, mask, beta=beta, norm_pix=norm_pix)["loss"]


@in_float32
def uni4eye_terms(
    intensity: Tensor, gradient: Tensor, patches: Tensor, steepness: Tensor, mask: Tensor, *, beta: float = 1.0,
    norm_pix: bool = False,
) -> dict[str, Tensor]:  # fmt: skip
    """The weighted sum and both errors; with beta 0 the sum is MAE's loss.

    Args:
        intensity: (N, L, P) of the intensity branch, all patches.
        gradient: (N, L, P) of the gradient branch.
        patches: (N, L, P) pixels of the patches P(x).
        steepness: (N, L, P) patches P(g) of the :func:`gradient_map`.
        mask: (N, L), True or 1 where a patch was hidden.
        beta: weight of the gradient branch; 0 leaves it out.
        norm_pix: targets normalised patch by patch.

    Returns:
        ``loss``, ``intensity``, ``gradient``; 0 where nothing is hidden.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, a negative beta.
    """
    if not beta >= 0:
        raise UserError(f"beta={beta}: a weight of 0 or more")
    first = mae(intensity, patches, mask, norm_pix=norm_pix)
    second = mae(gradient, steepness, mask, norm_pix=norm_pix)
    return {"loss": first + beta * second if beta else first, "intensity": first, "gradient": second}
