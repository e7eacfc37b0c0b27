"""Structural similarity of images at one scale and at several (Wang et al. 2003 and 2004), with gradients.

x is one image and y the other, I, C and S their luminance, contrast and structure in Gaussian windows. All functions
take (B, C, H, W) images whose values lie in [0, data_range].
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_positive, in_float32
from selftaught.objectives._ssim import (
    Constants,
    Moments,
    as_seen,
    check_images,
    check_window,
    constants,
    contrast_structure,
    gaussian,
    halved,
    luminance,
    moments,
)

__all__ = [
    "MS_SSIM_SIGMAS",
    "MS_SSIM_WEIGHTS",
    "SSIMComponents",
    "ms_ssim",
    "ms_ssim_map",
    "ms_ssim_scales",
    "ms_ssim_weights",
    "ssim",
    "ssim_components",
]

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The exponents g of the five scales, the finest first (Wang et al. 2003)."""

MS_SSIM_SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Widths of the windows that stand for the scales where nothing is made smaller (Zhao et al. 2015)."""

_FLOOR = 1e-8
_BORDERS = ("valid", "reflect")


class SSIMComponents(NamedTuple):
    """The three comparisons of each window, and the product of the last two, (B, C, h, w) each."""

    luminance: Tensor
    contrast: Tensor
    structure: Tensor
    contrast_structure: Tensor


@in_float32
def ssim_components(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    win_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
) -> SSIMComponents:
    """I, C and S of every window that lies wholly in the image.

        I = (2 mu_x mu_y + C1) / (mu_x^2 + mu_y^2 + C1)        C = (2 s_x s_y + C2) / (s_x^2 + s_y^2 + C2)
        S = (s_xy + C2/2) / (s_x s_y + C2/2)                   C S = (2 s_xy + C2) / (s_x^2 + s_y^2 + C2)

    Args:
        x: (B, C, H, W).
        y: (B, C, H, W).
        data_range: L, what white is worth; C1 = (k1 L)^2, C2 = (k2 L)^2.
        win_size: side of the window in pixels.
        sigma: its standard deviation in pixels; the weights sum to 1.
        k1: of C1.
        k2: of C2.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, an image smaller than the window.
    """
    check_images(x, y, data_range)
    check_window(win_size, sigma, x.shape[2:])
    c = constants(data_range, k1, k2)
    m = moments(x, y, gaussian(win_size, sigma, x), data_range / 2)
    deviations = _root(m.variance_x) * _root(m.variance_y)
    contrast = (2 * deviations + c.c2) / (m.variance_x + m.variance_y + c.c2)
    structure = (m.covariance + c.c2 / 2) / (deviations + c.c2 / 2)
    return SSIMComponents(luminance(m, c), contrast, structure, contrast_structure(m, c))


@in_float32
def ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    win_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    colour: str = "per_channel",
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Structural similarity: the mean of I C S over the windows, the channels and the batch.

    Args:
        x: (B, C, H, W).
        y: (B, C, H, W).
        data_range: L, what white is worth.
        win_size: side of the window in pixels.
        sigma: its standard deviation in pixels.
        k1: of C1 = (k1 L)^2.
        k2: of C2 = (k2 L)^2.
        colour: "per_channel", or "luma" of RGB images.
        reduction: "mean" gives a scalar, "none" (B,).

    Raises:
        UserError: (a ``ValueError``) shapes that differ, an image smaller than the window.
    """
    check_images(x, y, data_range)
    check_window(win_size, sigma, x.shape[2:])
    _check_words(colour, reduction, ("mean", "none"))
    c = constants(data_range, k1, k2)
    m = moments(as_seen(x, colour), as_seen(y, colour), gaussian(win_size, sigma, x), data_range / 2)
    found = (luminance(m, c) * contrast_structure(m, c)).mean((1, 2, 3))
    return found if reduction == "none" else found.mean()


@in_float32
def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    win_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    scales: int | Literal["auto"] = 5,
    weights: tuple[float, ...] | None = None,
    colour: str = "per_channel",
    downsample: Literal["avgpool", "gauss"] = "avgpool",
    clamp: Literal["eps", "relu"] = "eps",
    reduction: Literal["mean", "none", "pixel"] = "mean",
) -> Tensor:
    """Multi-scale structural similarity.

        MS-SSIM = mean(I C S)_M ^ g_M  prod_{j < M} mean(C S)_j ^ g_j

    Image j + 1 is image j at half the size; means are over places and come before the powers, each channel has a
    product of its own. With ``reduction="pixel"`` it is the mean of :func:`ms_ssim_map`, in which every place has all
    its scales.

    Args:
        x: (B, C, H, W).
        y: (B, C, H, W).
        data_range: L, what white is worth.
        win_size: side of the window in pixels, the same at every scale.
        sigma: its standard deviation in pixels.
        k1: of C1 = (k1 L)^2.
        k2: of C2 = (k2 L)^2.
        scales: M; "auto" takes as many of the five as the image has room for (:func:`ms_ssim_scales`).
        weights: g, the finest scale first, used as they are; None: :func:`ms_ssim_weights` of M scales.
        colour: "per_channel", or "luma" of RGB images.
        downsample: "avgpool" (2 x 2 averages) or "gauss" (binomial filter of 5 taps, every second pixel). An odd last
            row or column is left out.
        clamp: what becomes of a mean below 0 before its power: "eps" raises it to 1e-8, "relu" makes the power 0.
        reduction: "mean" over channels and batch; "none": over channels alone, (B,); "pixel": see above.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, too many scales for the image, weights of another number.
    """
    check_images(x, y, data_range)
    _check_words(colour, reduction, ("mean", "none", "pixel"))
    check_choice("downsample", downsample, ("avgpool", "gauss"))
    check_choice("clamp", clamp, ("eps", "relu"))
    if reduction == "pixel":
        return ms_ssim_map(
            x, y, data_range=data_range, k1=k1, k2=k2, scales=scales, weights=weights, colour=colour, clamp=clamp
        ).mean()
    count = _count(scales, weights, min(x.shape[2:]), win_size)
    check_window(win_size, sigma, [side // 2 ** (count - 1) for side in x.shape[2:]])
    powers = ms_ssim_weights(count) if weights is None else weights
    c, window = constants(data_range, k1, k2), gaussian(win_size, sigma, x)
    x, y = as_seen(x, colour), as_seen(y, colour)
    product = x.new_ones(x.shape[:2])
    for scale, power in enumerate(powers):
        if scale:
            x, y = halved(x, downsample), halved(y, downsample)
        m = moments(x, y, window, data_range / 2)
        product = product * _power(_compared(m, c, scale == count - 1).mean((2, 3)), power, clamp)
    found = product.mean(1)
    return found if reduction == "none" else found.mean()


@in_float32
def ms_ssim_map(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    sigmas: tuple[float, ...] = MS_SSIM_SIGMAS,
    scales: int | Literal["auto"] = 5,
    weights: tuple[float, ...] | None = None,
    colour: str = "per_channel",
    clamp: Literal["eps", "relu"] = "eps",
    border: Literal["valid", "reflect"] = "valid",
) -> Tensor:
    """Multi-scale similarity of every pixel, all scales centred there: windows grow where images would shrink.

        MS-SSIM_p = (I C S)_{M,p} ^ g_M  prod_{j < M} (C S)_{j,p} ^ g_j

    The windows of all scales have the side of the widest one, 4 sigma_M + 1. ``weights=(1, 1, 1, 1, 1)`` gives Zhao et
    al.'s product (arXiv 1511.08861); the paper's loss is minus the sum over the pixels.

    Args:
        x: (B, C, H, W).
        y: (B, C, H, W).
        data_range: L, what white is worth.
        k1: of C1 = (k1 L)^2.
        k2: of C2 = (k2 L)^2.
        sigmas: widths of the windows in pixels, the finest first.
        scales: how many of them; "auto": those whose window fits.
        weights: g; None: :func:`ms_ssim_weights`.
        colour: "per_channel", or "luma" of RGB images.
        clamp: as of :func:`ms_ssim`, at every pixel.
        border: "valid" leaves out pixels whose widest window leaves the image; "reflect" mirrors the image.

    Returns:
        (B, C, h, w).

    Raises:
        UserError: (a ``ValueError``) shapes that differ, a window that doesn't fit.
    """
    check_images(x, y, data_range)
    check_choice("colour", colour, ("per_channel", "luma"))
    check_choice("border", border, _BORDERS)
    check_choice("clamp", clamp, ("eps", "relu"))
    side = min(x.shape[2:])
    room = sum(_window_side(sigma) <= side for sigma in sigmas)
    count = len(weights) if weights is not None and scales == 5 else max(1, room) if scales == "auto" else scales
    powers = ms_ssim_weights(count) if weights is None else weights
    if len(powers) != count or not 1 <= count <= len(sigmas):
        raise UserError(f"{count} scales, {len(powers)} weights, {len(sigmas)} sigmas: there is one of each per scale")
    size = _window_side(sigmas[count - 1])
    check_window(size, sigmas[0], x.shape[2:])
    c = constants(data_range, k1, k2)
    x, y = as_seen(x, colour), as_seen(y, colour)
    product: Tensor | None = None
    for scale, (sigma, power) in enumerate(zip(sigmas[:count], powers, strict=True)):
        m = moments(x, y, gaussian(size, sigma, x), data_range / 2, border)
        part = _power(_compared(m, c, scale == count - 1), power, clamp)
        product = part if product is None else product * part
    assert product is not None
    return product


def ms_ssim_scales(side: int, win_size: int = 11) -> int:
    """M: how many of the five scales a picture of this shorter side has room for, side / 2^(M-1) >= win_size.

    A side of 32 has room for 2, 64 for 3, 96 for 4, and 176 or more for all 5.
    """
    count = 1
    while count < len(MS_SSIM_WEIGHTS) and side // 2**count >= win_size:
        count += 1
    return count


def ms_ssim_weights(scales: int) -> tuple[float, ...]:
    """g of the first ``scales`` of the five scales: the standard numbers, or fewer of them brought to the sum 1.

    Raises:
        UserError: (a ``ValueError``) not 1 to 5 scales.
    """
    if isinstance(scales, bool) or not isinstance(scales, int) or not 1 <= scales <= len(MS_SSIM_WEIGHTS):
        raise UserError(f"scales={scales!r}: there are weights for 1 to {len(MS_SSIM_WEIGHTS)}; give your own")
    if scales == len(MS_SSIM_WEIGHTS):
        return MS_SSIM_WEIGHTS
    chosen = MS_SSIM_WEIGHTS[:scales]
    return tuple(weight / sum(chosen) for weight in chosen)


def _compared(m: Moments, c: Constants, coarsest: bool) -> Tensor:
    both = contrast_structure(m, c)
    return luminance(m, c) * both if coarsest else both


def _power(mean: Tensor, power: float, clamp: str) -> Tensor:
    """mean ^ power, with a finite gradient where the mean isn't positive."""
    if clamp == "eps":
        return mean.clamp_min(_FLOOR) ** power
    positive = mean > 0
    return torch.where(positive, torch.where(positive, mean, 1.0) ** power, 0.0)


def _root(x: Tensor) -> Tensor:
    """Square root whose gradient is 0 where x is."""
    flat = x == 0
    return x.masked_fill(flat, 1.0).sqrt().masked_fill(flat, 0.0)


def _window_side(sigma: float) -> int:
    check_positive(sigma=sigma)
    return 2 * round(2 * sigma) + 1


def _count(scales: int | str, weights: tuple[float, ...] | None, side: int, win_size: int) -> int:
    if scales == "auto":
        return ms_ssim_scales(side, win_size) if weights is None else len(weights)
    if weights is not None and scales == 5:
        return len(weights)
    if isinstance(scales, bool) or not isinstance(scales, int) or scales < 1:
        raise UserError(f"scales={scales!r}: a number of scales, or 'auto'")
    if weights is not None and len(weights) != scales:
        raise UserError(f"{scales} scales and {len(weights)} weights: there is one for each scale")
    return scales


def _check_words(colour: str, reduction: str, reductions: tuple[str, ...]) -> None:
    check_choice("colour", colour, ("per_channel", "luma"))
    check_choice("reduction", reduction, reductions)
