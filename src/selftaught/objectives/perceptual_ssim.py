"""Structural similarity as an objective (Snell et al., ICIP 2017, arXiv 1511.06409).

The similarity itself is in :mod:`structural_similarity <selftaught.objectives.structural_similarity>`. Images are
(B, C, H, W) with values in [0, data_range].
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, in_float32, mean_distance
from selftaught.objectives._ssim import check_images
from selftaught.objectives.structural_similarity import ms_ssim, ssim

__all__ = ["el_vae", "el_vae_terms", "perceptual_ssim", "standard_normal_kl"]

Loss = Literal["msssim", "ssim", "l1", "l2", "mix"]
LOSSES = ("msssim", "ssim", "l1", "l2", "mix")


@in_float32
def perceptual_ssim(
    output: Tensor,
    target: Tensor,
    *,
    loss: Loss = "msssim",
    alpha: float = 0.84,
    data_range: float = 1.0,
    win_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    scales: int | Literal["auto"] = "auto",
    weights: tuple[float, ...] | None = None,
    colour: str = "per_channel",
    downsample: Literal["avgpool", "gauss"] = "avgpool",
    clamp: Literal["eps", "relu"] = "eps",
    reduction: Literal["mean", "pixel"] = "mean",
) -> Tensor:
    """How far an image is from its target, Delta: one of the distances that the paper compares.

        msssim  mean (1 - MS-SSIM)      l1  mean |x - y|      mix  alpha (1 - MS-SSIM) + (1 - alpha) mean |x - y|
        ssim    mean (1 - SSIM)         l2  mean (x - y)^2

    Args:
        output: (B, C, H, W).
        target: (B, C, H, W).
        loss: which of them.
        alpha: of mix; 0.84 is Zhao et al.'s.
        data_range: L, what white is worth; l1 and l2 stay in the images' units.
        win_size: as of :func:`ms_ssim`, like all that follow.
        sigma: as there.
        k1: as there.
        k2: as there.
        scales: as there, by default as many as the image has room for.
        weights: as there.
        colour: as there.
        downsample: as there.
        clamp: as there.
        reduction: as there.

    Raises:
        UserError: (a ``ValueError``) another loss, shapes that differ, an image too small.
    """
    check_choice("loss", loss, LOSSES)
    check_images(output, target, data_range)
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha={alpha}: a share between 0 and 1")
    if loss in ("l1", "l2"):
        return mean_distance(output, target, loss)
    window = {"data_range": data_range, "win_size": win_size, "sigma": sigma, "k1": k1, "k2": k2, "colour": colour}
    if loss == "ssim":
        return 1 - ssim(output, target, **window)  # type: ignore[arg-type]
    similar = ms_ssim(
        output, target, **window, scales=scales, weights=weights,  # type: ignore[arg-type]
        downsample=downsample, clamp=clamp, reduction=reduction,
    )  # fmt: skip
    if loss == "msssim":
        return 1 - similar
    return alpha * (1 - similar) + (1 - alpha) * mean_distance(output, target, "l1")


@in_float32
def standard_normal_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL( N(mu, s^2) || N(0, 1) ) = 1/2 sum_d (mu^2 + s^2 - 1 - ln s^2), mean over the batch.

    Args:
        mean: (B, D) mu.
        log_variance: (B, D) ln s^2.

    Raises:
        UserError: (a ``ValueError``) shapes that differ.
    """
    check_floats(mean=mean, log_variance=log_variance)
    if mean.ndim != 2 or mean.shape != log_variance.shape or 0 in mean.shape:
        shapes = f"{tuple(mean.shape)} and {tuple(log_variance.shape)}"
        raise UserError(f"mean and log_variance need one shape (B, D), got {shapes}")
    return 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance).sum(1).mean()


@in_float32
def el_vae(distance: Tensor, mean: Tensor, log_variance: Tensor, *, lambda_: float = 1000.0) -> Tensor:
    """Loss of the expected-loss VAE: a distance of images in place of the likelihood.

        L = E_{z ~ q(z|x)} [ lambda Delta(x, x^(z)) ] + KL( q(z|x) || N(0, I) ),        one z for each x

    With Delta = l2 and lambda = C H W / (2 sigma^2) it is the loss of the VAE with Gaussian pixels of deviation sigma,
    up to a constant.

    Args:
        distance: scalar Delta, from :func:`perceptual_ssim` of x and the decoded z.
        mean: (B, D) of q(z|x).
        log_variance: (B, D) of q(z|x).
        lambda_: weight of the distance; the three distances differ by orders of magnitude, so each needs its own.

    Raises:
        UserError: (a ``ValueError``) a distance that is no scalar, shapes that differ.
    """
    return el_vae_terms(distance, mean, log_variance, lambda_=lambda_)["loss"]


@in_float32
def el_vae_terms(distance: Tensor, mean: Tensor, log_variance: Tensor, *, lambda_: float = 1000.0) -> dict[str, Tensor]:
    """:func:`el_vae` as ``loss``, with ``distance`` and ``kl`` without weights."""
    check_floats(distance=distance)
    if distance.ndim:
        raise UserError(f"distance is one number, the mean over the batch; got the shape {tuple(distance.shape)}")
    if lambda_ < 0:
        raise UserError(f"lambda_={lambda_}: a weight of 0 or more")
    kl = standard_normal_kl(mean, log_variance)
    return {"loss": lambda_ * distance + kl, "distance": distance, "kl": kl}
