"""Losses of INFWIDE (Zhang et al., TIP 2023, arXiv 2207.08201): sharp image at two sizes, denoised image, re-blurring.

x is sharp, b its blurred copy without noise, y the noisy one; all reductions are means over batch, channels and places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, in_float32
from selftaught.objectives.structural_similarity import ssim

__all__ = ["infwide", "infwide_denoise", "infwide_main", "infwide_reblur", "infwide_terms", "infwide_tv", "reblurred"]


@in_float32
def infwide_tv(image: Tensor) -> Tensor:
    """Total variation of an output, of squared differences.

        TV = 2 / B ( sum vertical^2 / (C (H - 1) W)  +  sum horizontal^2 / (C H (W - 1)) )

    Args:
        image: (B, C, H, W), 2 pixels a side or more.
    """
    _check(image=image)
    if min(image.shape[2:]) < 2:
        raise UserError(f"differences need two pixels a side, got {tuple(image.shape)}")
    return 2 * (image.diff(dim=2).square().mean() + image.diff(dim=3).square().mean())


@in_float32
def infwide_main(
    outputs: Sequence[Tensor] | Tensor,
    sharp: Tensor,
    *,
    l1: float = 0.4,
    mse: float = 0.2,
    ssim_weight: float = 0.2,
    tv: float = 0.2,
) -> Tensor:
    """sum over sizes s of M(out_s, bilinear(x, s)), M = 0.4 L1 + 0.2 MSE + 0.2 (1 - SSIM) + 0.2 TV(out).

    Args:
        outputs: images at half and at full size, or the full one alone, each (B, C, h, w).
        sharp: (B, C, H, W) x; it is brought to each output's size. Images of fewer than 11 pixels a side have no SSIM.
        l1: weight of the absolute difference.
        mse: weight of the squared difference.
        ssim_weight: weight of 1 - SSIM.
        tv: weight of :func:`infwide_tv`.

    Raises:
        UserError: (a ``ValueError``) no output, shapes that don't fit.
    """
    stages = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if not stages:
        raise UserError("outputs: give the image of one size or more")
    _check(sharp=sharp, **{f"outputs[{i}]": one for i, one in enumerate(stages)})
    found = []
    for one in stages:
        if one.shape[:2] != sharp.shape[:2]:
            raise UserError(f"outputs {tuple(one.shape)} and sharp {tuple(sharp.shape)} differ in more than size")
        wanted = sharp
        if one.shape != sharp.shape:
            share = [a / b for a, b in zip(one.shape[2:], sharp.shape[2:], strict=True)]
            if not all(0.4 < s < 0.6 for s in share):
                raise UserError(f"an output {tuple(one.shape)} of sharp {tuple(sharp.shape)}: half its size, or all")
            wanted = F.interpolate(sharp, size=one.shape[2:], mode="bilinear", align_corners=False)
        term = l1 * (one - wanted).abs().mean() + mse * (one - wanted).square().mean() + tv * infwide_tv(one)
        found.append(term + ssim_weight * (1 - ssim(one, wanted)) if ssim_weight else term)
    return torch.stack(found).sum()


@in_float32
def infwide_denoise(denoised: Tensor, clean: Tensor, *, l1: float = 0.5, mse: float = 0.3, tv: float = 0.2) -> Tensor:
    """D = 0.5 L1(d, b) + 0.3 MSE(d, b) + 0.2 TV(d).

    Args:
        denoised: (B, C, H, W) d.
        clean: (B, C, H, W) b.
        l1: weight of the absolute difference.
        mse: weight of the squared difference.
        tv: weight of :func:`infwide_tv`.
    """
    _check(denoised=denoised, clean=clean)
    _check_same(denoised, clean)
    difference = denoised - clean
    return l1 * difference.abs().mean() + mse * difference.square().mean() + tv * infwide_tv(denoised)


@in_float32
def reblurred(image: Tensor, kernel: Tensor) -> Tensor:
    """True convolution with wrap-around: (h - 1) // 2 pixels in front, the rest behind, and the kernel flipped.

    Args:
        image: (B, C, H, W).
        kernel: (B, 1, h, w), as it is; no larger than the image.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit.
    """
    _check(image=image, kernel=kernel)
    if len(kernel) != len(image) or kernel.shape[1] != 1:
        raise UserError(f"one kernel (1, h, w) for each image, got {tuple(kernel.shape)} for {tuple(image.shape)}")
    high, wide = kernel.shape[2:]
    if high > image.shape[2] or wide > image.shape[3]:
        raise UserError(f"a kernel of {high} x {wide} is larger than the image {tuple(image.shape)}")
    top, left = (high - 1) // 2, (wide - 1) // 2
    around = F.pad(image, (left, wide - 1 - left, top, high - 1 - top), mode="circular")
    batch, channels = image.shape[:2]
    flipped = kernel.flip(2, 3).repeat_interleave(channels, 0)
    made = F.conv2d(around.reshape(1, batch * channels, *around.shape[2:]), flipped, groups=batch * channels)
    return made.reshape(image.shape)


@in_float32
def infwide_reblur(output: Tensor, kernel: Tensor, clean: Tensor) -> Tensor:
    """L1( k (*) out, b ): the output blurred again must give the blurred image.

    Args:
        output: (B, C, H, W) at full size.
        kernel: (B, 1, h, w).
        clean: (B, C, H, W) b, made with wrap-around.
    """
    _check(clean=clean)
    _check_same(output, clean)
    return (reblurred(output, kernel) - clean).abs().mean()


@in_float32
def infwide(
    outputs: Sequence[Tensor],
    denoised: Tensor,
    sharp: Tensor,
    clean: Tensor,
    kernel: Tensor,
    *,
    denoise: float = 0.5,
    reblur: float = 0.5,
) -> Tensor:
    """L = main + 0.5 denoise + 0.5 reblur, see :func:`infwide_terms`."""
    return infwide_terms(outputs, denoised, sharp, clean, kernel, denoise=denoise, reblur=reblur)["loss"]


@in_float32
def infwide_terms(
    outputs: Sequence[Tensor],
    denoised: Tensor,
    sharp: Tensor,
    clean: Tensor,
    kernel: Tensor,
    *,
    denoise: float = 0.5,
    reblur: float = 0.5,
    ssim_weight: float = 0.2,
    tv: float = 0.2,
) -> dict[str, Tensor]:
    """The whole loss and its parts.

    Args:
        outputs: images at half and full size, the full one last.
        denoised: (B, C, H, W) d.
        sharp: (B, C, H, W) x.
        clean: (B, C, H, W) b, neither noisy nor clipped.
        kernel: (B, 1, h, w).
        denoise: weight of :func:`infwide_denoise`; 0 leaves it out.
        reblur: weight of :func:`infwide_reblur`; 0 leaves it out.
        ssim_weight: of :func:`infwide_main`.
        tv: of all images.

    Returns:
        ``loss``, and ``main``, ``denoise``, ``reblur`` without their weights.
    """
    main = infwide_main(outputs, sharp, ssim_weight=ssim_weight, tv=tv)
    terms, loss = {"main": main}, main
    if denoise:
        terms["denoise"] = infwide_denoise(denoised, clean, tv=tv)
        loss = loss + denoise * terms["denoise"]
    if reblur:
        terms["reblur"] = infwide_reblur(outputs[-1], kernel, clean)
        loss = loss + reblur * terms["reblur"]
    return {"loss": loss} | terms


def _check(**images: Tensor) -> None:
    check_floats(**images)
    for name, image in images.items():
        if image.ndim != 4 or 0 in image.shape:
            raise UserError(f"{name} needs the shape (B, C, H, W), got {tuple(image.shape)}")


def _check_same(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise UserError(f"the two images need one shape, got {tuple(one.shape)} and {tuple(other.shape)}")
