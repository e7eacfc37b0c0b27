"""Monodepth2: each frame must be made of its neighbours (Godard et al., ICCV 2019, arXiv 1806.01260).

    L = 1/S sum_s [ mean mu min_f pe(I_0, I_f->0) + lambda / 2^s smooth(d_s) ]

over the frames f before and after, with the mask mu = 1 where the best warped frame beats the best frame as it stands
(automask: what doesn't move against the camera teaches nothing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import in_float32
from selftaught.objectives._photometric import (
    ImageStatistics,
    check_maps,
    edge_smoothness,
    photometric_error,
    ssim_distance,
    ssim_statistics,
)

__all__ = [
    "ImageStatistics",
    "automask_noise",
    "edge_smoothness",
    "minimum_reprojection",
    "monodepth2",
    "monodepth2_terms",
    "photometric_error",
    "pyramid_smoothness",
    "reprojection_errors",
    "ssim_distance",
    "ssim_statistics",
]

NOISE = 1e-5


def automask_noise(errors: Tensor, generator: torch.Generator | None = None, scale: float = NOISE) -> Tensor:
    """Small normal noise of the shape of the errors, that breaks ties of frames as they stand.

    Args:
        errors: (N, F, H, W).
        generator: of the draw.
        scale: standard deviation (default 1e-5).
    """
    check_maps(errors=errors)
    return scale * torch.randn(errors.shape, generator=generator, device=errors.device, dtype=errors.dtype)


@in_float32
def reprojection_errors(frames: Tensor, target: Tensor, *, alpha: float = 0.85) -> Tensor:
    """The photometric error of several frames against one target.

    Args:
        frames: (F, N, C, H, W): neighbours, warped or as they stand, in [0, 1].
        target: (N, C, H, W).
        alpha: share of the structural part.

    Returns:
        (N, F, H, W).

    Raises:
        UserError: shapes that don't fit.
    """
    check_maps(5, frames=frames)
    check_maps(target=target)
    if frames.shape[1:] != target.shape:
        raise UserError(f"frames {tuple(frames.shape)}, target {tuple(target.shape)}: (F, N, C, H, W) and (N, C, H, W)")
    known = ssim_statistics(target)
    return torch.cat([photometric_error(frame, known, alpha=alpha) for frame in frames], 1)


@in_float32
def minimum_reprojection(
    warped: Tensor, identity: Tensor | None = None, *, average: bool = False
) -> tuple[Tensor, Tensor]:
    """min over frames of the warped errors and, where given, of the errors of the frames as they stand.

    Args:
        warped: (N, F, H, W).
        identity: (N, F', H, W) with its noise, or None for no automask.
        average: mean over the frames in place of their minimum, of each kind (Monodepth2's ablation).

    Returns:
        The smallest error (N, H, W), and where it is a warped frame's, bool (N, H, W).

    Raises:
        UserError: shapes that don't fit.
    """
    check_maps(4, warped=warped, **({} if identity is None else {"identity": identity}))
    if identity is not None and identity.shape[2:] != warped.shape[2:]:
        raise UserError(f"warped {tuple(warped.shape)}: pass errors (N, F, H, W), identity of the same size")
    if identity is not None and len(identity) != len(warped):
        raise UserError(f"identity: {len(identity)} images for {len(warped)}")
    if average:
        warped = warped.mean(1, keepdim=True)
        identity = None if identity is None else identity.mean(1, keepdim=True)
    best = warped.amin(1)
    if identity is None:
        return best, torch.ones_like(best, dtype=torch.bool)
    still = identity.amin(1)
    return torch.minimum(still, best), best < still


def pyramid_smoothness(disparities: Mapping[int, Tensor], image: Tensor, weight: float = 1e-3) -> Tensor:
    """Mean over scales s of weight / 2^s times :func:`edge_smoothness` against the picture at that scale.

    Args:
        disparities: scale -> (N, 1, H / 2^s, W / 2^s).
        image: (N, C, H, W).
        weight: lambda.

    Raises:
        UserError: no disparity, or shapes that don't fit.
    """
    if not disparities:
        raise UserError("disparities: pass one scale or more")
    check_maps(4, image=image, **{f"disparity {s}": d for s, d in disparities.items()})
    terms = [weight / 2**s * edge_smoothness(d, resized(image, d.shape[2:])) for s, d in disparities.items()]
    return torch.stack(terms).mean()


def noisy(errors: Tensor, noise: Tensor | None) -> Tensor:
    """Errors (N, F, H, W) with the noise that was given, or drawn.

    Raises:
        UserError: noise of another shape.
    """
    if noise is not None and noise.shape != errors.shape:
        raise UserError(f"noise: shape {tuple(noise.shape)}; pass {tuple(errors.shape)}")
    return errors + (automask_noise(errors) if noise is None else noise)


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """A picture at a coarser scale, by the mean of its pixels; unchanged where it has that size."""
    return image if tuple(image.shape[2:]) == tuple(size) else F.interpolate(image, size=tuple(size), mode="area")


def monodepth2(
    disparities: Mapping[int, Tensor],
    warped: Mapping[int, Tensor],
    target: Tensor,
    sources: Tensor,
    *,
    smoothness: float = 1e-3,
    automask: bool = True,
    average: bool = False,
    alpha: float = 0.85,
    noise: Tensor | None = None,
) -> Tensor:
    """Monodepth2's loss; see :func:`monodepth2_terms` for what goes in."""
    return monodepth2_terms(
        disparities, warped, target, sources, smoothness=smoothness, automask=automask, average=average, alpha=alpha,
        noise=noise,
    )["loss"]  # fmt: skip


def monodepth2_terms(
    disparities: Mapping[int, Tensor],
    warped: Mapping[int, Tensor],
    target: Tensor,
    sources: Tensor,
    *,
    smoothness: float = 1e-3,
    automask: bool = True,
    average: bool = False,
    alpha: float = 0.85,
    noise: Tensor | None = None,
) -> dict[str, Tensor]:
    """Photometric and smoothness terms, means over the scales.

    Args:
        disparities: scale -> sigmoid disparities (N, 1, H / 2^s, W / 2^s).
        warped: scale -> neighbours warped by that scale's depth at full size, (F, N, C, H, W) in [0, 1].
        target: (N, C, H, W) in [0, 1].
        sources: the neighbours as they stand, (F, N, C, H, W).
        smoothness: lambda (default 1e-3).
        automask: whether frames as they stand take part in the minimum.
        average: see :func:`minimum_reprojection`.
        alpha: share of SSIM; 0 is the ablation without it.
        noise: added to the errors of frames as they stand; None draws it.

    Returns:
        ``loss``, ``photometric``, ``smoothness``, and ``moving``, the share of pixels that a warped frame explains
        best.

    Raises:
        UserError: other scales in one than in the other, shapes that don't fit.
    """
    if set(disparities) != set(warped) or not warped:
        raise UserError(f"disparities of scales {list(disparities)}, warped of {list(warped)}: pass the same scales")
    identity = None
    if automask:
        identity = reprojection_errors(sources, target, alpha=alpha)
        identity = noisy(identity, noise)
    found = [
        minimum_reprojection(reprojection_errors(frames, target, alpha=alpha), identity, average=average)
        for frames in warped.values()
    ]
    photometric = torch.stack([best.mean() for best, _ in found]).mean()
    smooth = pyramid_smoothness(disparities, target, smoothness)
    moving = torch.stack([mask.float().mean() for _, mask in found]).mean()
    return {"loss": photometric + smooth, "photometric": photometric, "smoothness": smooth, "moving": moving}
