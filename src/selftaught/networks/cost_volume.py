"""Matching frames at many depths, and repairing the match where things move: ManyDepth's volume and ProDepth's PCVM.

A plane-sweep volume says for every pixel and every depth bin how unlike the target's features the other frame's are
when they are warped by that depth (Watson et al., CVPR 2021, arXiv 2104.14540). Probabilistic cost volume modulation
mixes its distribution with a single frame's where the two disagree (Woo et al., ECCV 2024, arXiv 2407.09303).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.networks.projection import exact, sampling_grid

__all__ = [
    "Modulation",
    "Spacing",
    "cost_volume",
    "depth_bins",
    "fill_missing",
    "matching_distribution",
    "modulate_cost_volume",
    "normalise_over_bins",
    "single_frame_distribution",
    "static_weight",
    "track_depth_range",
]

_TINY = 1e-7
_EDGE = 2
Spacing = Literal["sid", "linear", "inverse"]
Modulation = Literal["none", "hard", "full"]


def depth_bins(low: Tensor | float, high: Tensor | float, count: int = 128, spacing: Spacing = "sid") -> Tensor:
    """Depths (count,) from ``low`` to ``high``: even in log depth ("sid"), in depth ("linear") or in 1 / depth.

    sid: b_k = exp(log m + log(M / m) k / (D - 1)).

    Raises:
        UserError: a count below 2, a range that isn't 0 < low < high, an unknown spacing.
    """
    m, top = torch.as_tensor(low, dtype=torch.float32), torch.as_tensor(high, dtype=torch.float32)
    if not torch.compiler.is_compiling() and (count < 2 or not bool((m > 0) & (top > m))):
        raise UserError(f"{count} bins from {float(m):g} to {float(top):g}: give 2 or more in a range 0 < low < high")
    share = torch.arange(count, dtype=torch.float32, device=m.device) / (count - 1)
    if spacing == "sid":
        return torch.exp(torch.log(m) + torch.log(top / m) * share)
    if spacing == "linear":
        return m + (top - m) * share
    if spacing == "inverse":
        return 1 / (1 / m + (1 / top - 1 / m) * share)
    raise UserError(f"spacing {spacing!r}: sid, linear or inverse")


def track_depth_range(low: Tensor, high: Tensor, depth: Tensor, keep: float = 0.99) -> tuple[Tensor, Tensor]:
    """The range of bins moved towards a batch's: x <- keep x + (1 - keep) x_new.

    x_new are batch means of each image's smallest depth times 0.9, at least 0.1, and of its largest times 1.1.

    Args:
        low: smallest depth so far.
        high: largest depth so far.
        depth: (N, 1, H, W) of the single-frame network.
        keep: share of the old value (default 0.99).
    """
    flat = depth.detach().flatten(1)
    new_low = (0.9 * flat.amin(1)).clamp_min(0.1).mean()
    new_high = (1.1 * flat.amax(1)).mean()
    return keep * low + (1 - keep) * new_low, keep * high + (1 - keep) * new_high


@exact
def cost_volume(
    features: Tensor, lookup: Tensor, transforms: Tensor, camera: Tensor, bins: Tensor, *, margin: int = _EDGE
) -> Tensor:
    """C_k(p): mean over the frames of mean_c |warp_k(F_lookup)(p) - F_target(p)|; 0 where no frame says anything.

    A cell counts where its sample and the pixel itself lie ``margin`` pixels or more inside the map. A frame whose
    transform is all zero is missing.

    Args:
        features: (N, C, h, w) of the target.
        lookup: (F, N, C, h, w) of the other frames.
        transforms: (F, N, 4, 4) target to other frame.
        camera: (N, 3, 3) intrinsics in pixels of these maps.
        bins: (D,) depths.
        margin: pixels (default 2).

    Returns:
        (N, D, h, w), not filled; see :func:`fill_missing`. No gradient.

    Raises:
        UserError: shapes that don't fit.
    """
    if lookup.dim() != 5 or lookup.shape[1:] != features.shape or transforms.shape[:2] != lookup.shape[:2]:
        raise UserError(
            f"features {tuple(features.shape)}, lookup {tuple(lookup.shape)}: pass (N, C, h, w), (F, N, C, h, w)"
        )
    n, _, height, width = features.shape
    inside = features.new_zeros(height, width)
    inside[margin : height - margin, margin : width - margin] = 1
    total = features.new_zeros(n, len(bins), height, width)
    counts = torch.zeros_like(total)
    together = len(bins) if torch.compiler.is_exporting() else 1  # a graph of all bins at once, not of each
    with torch.no_grad():
        for frame, transform in zip(lookup, transforms, strict=True):
            there = (transform.abs().sum((1, 2)) > 0).to(features.dtype)[:, None, None]
            usable = torch.where(
                there[:, :, :1] > 0, transform, torch.eye(4, device=transform.device, dtype=transform.dtype)
            )
            for start in range(0, len(bins), together):
                some = bins[start : start + together]
                depth = some.repeat(n)[:, None, None, None].expand(n * len(some), 1, height, width)
                own = [_each(x, len(some)) for x in (frame, features, camera, usable)]
                grid = sampling_grid(depth, own[2], own[3])
                seen = F.grid_sample(own[0], grid, padding_mode="zeros", mode="bilinear", align_corners=True)
                x = (grid[..., 0] / 2 + 0.5) * (width - 1)
                y = (grid[..., 1] / 2 + 0.5) * (height - 1)
                valid = (x >= margin) & (x <= width - margin) & (y >= margin) & (y <= height - margin)
                cost = ((seen - own[1]).abs().mean(1) * valid * inside).unflatten(0, (n, len(some))) * there[:, None]
                total[:, start : start + together] += cost
                counts[:, start : start + together] += cost > 0
    return total / (counts + _TINY)


def _each(x: Tensor, times: int) -> Tensor:
    """Every row that many times, one after the other."""
    return x if times == 1 else x.repeat_interleave(times, 0)


def fill_missing(volume: Tensor) -> Tensor:
    """Cells of exactly 0 take the largest cost of their pixel, (N, D, h, w)."""
    return torch.where(volume == 0, volume.amax(1, keepdim=True), volume)


def normalise_over_bins(x: Tensor) -> Tensor:
    """(x - min_k x) / (max_k x - min_k x + 1e-7), (N, D, h, w); 0 where all bins are alike."""
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    return (x - low) / (high - low + _TINY)


@exact
def matching_distribution(volume: Tensor) -> Tensor:
    """p_M = norm(softmax_k(-norm(C))), (N, D, h, w)."""
    return normalise_over_bins(torch.softmax(-normalise_over_bins(volume), 1))


@exact
def single_frame_distribution(bins: Tensor, depth: Tensor, sigma: Tensor) -> Tensor:
    """p_S = norm(N(b_k; D_mono, sigma_mono)): a Gaussian in depth; sigma is a deviation.

    Args:
        bins: (D,).
        depth: (N, 1, h, w).
        sigma: (N, 1, h, w), above 0.

    Returns:
        (N, D, h, w).

    Raises:
        UserError: shapes that differ.
    """
    if depth.shape != sigma.shape or depth.dim() != 4 or depth.shape[1] != 1:
        raise UserError(f"depth {tuple(depth.shape)} and sigma {tuple(sigma.shape)}: pass two of shape (N, 1, h, w)")
    away = (bins[None, :, None, None] - depth) / sigma
    return normalise_over_bins(torch.exp(-0.5 * away**2) / (sigma * math.sqrt(2 * math.pi)))


@exact
def static_weight(matched: Tensor, single: Tensor, decay: float = 2 / 3) -> Tensor:
    """w = exp(-decay |D_cv - D_mono|) exp(-decay |1/D_cv - 1/D_mono|): 1 where nothing moves, towards 0 where it does.

    Args:
        matched: D_cv, depths of the decoder of the raw volume (N, 1, h, w).
        single: D_mono, the single-frame network's depths, of the same shape.
        decay: 2/3 in the paper.

    Raises:
        UserError: shapes that differ.
    """
    if matched.shape != single.shape:
        raise UserError(f"matched {tuple(matched.shape)} and single {tuple(single.shape)}: pass two of one shape")
    return torch.exp(-decay * ((matched - single).abs() + (1 / matched - 1 / single).abs()))


@exact
def modulate_cost_volume(
    volume: Tensor, single: Tensor, weight: Tensor, *, threshold: float = 0.4, modulation: Modulation = "full"
) -> Tensor:
    """C': the cost volume that the mixed distribution stands for, between the same smallest and largest cost.

    p = B p_M + (1 - B) p_M^w p_S^(1 - w) with B = 1[w > threshold] ("hard": p_S alone where B = 0; "none": C itself);
    C' = (max p - p) / (max p - min p + 1e-7) (max C - min C) + min C.

    Args:
        volume: C (N, D, h, w), filled.
        single: p_S of the same shape.
        weight: w (N, 1, h, w) in [0, 1].
        threshold: above which a pixel is static.
        modulation: see above.

    Returns:
        (N, D, h, w), without gradient. Powers are those of numbers: 0^0 = 1, 0^x = 0.

    Raises:
        UserError: shapes that don't fit, an unknown modulation.
    """
    if volume.shape != single.shape or weight.shape != (volume.shape[0], 1, *volume.shape[2:]):
        shapes = f"{tuple(volume.shape)}, {tuple(single.shape)}, {tuple(weight.shape)}"
        raise UserError(f"volume, single and weight: shapes {shapes}; pass (N, D, h, w) twice, then (N, 1, h, w)")
    if modulation not in ("none", "hard", "full"):
        raise UserError(f"modulation {modulation!r}: none, hard or full")
    volume, single, weight = volume.detach(), single.detach(), weight.detach()
    if modulation == "none":
        return volume
    matched = matching_distribution(volume)
    mixed = single if modulation == "hard" else matched**weight * single ** (1 - weight)
    p = torch.where(weight > threshold, matched, mixed)
    low, high = volume.amin(1, keepdim=True), volume.amax(1, keepdim=True)
    top = p.amax(1, keepdim=True)
    return (top - p) / (top - p.amin(1, keepdim=True) + _TINY) * (high - low) + low
