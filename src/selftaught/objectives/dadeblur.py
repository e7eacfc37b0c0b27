"""DADeblur: adapt a video deblurrer by blurring what is sharp already (He et al., ECCV 2024, arXiv 2407.09059).

What a video's blur is (magnitudes, directions, conditions), what the three networks learn, and the fine-tuning loss.
Flows are (..., 2, H, W) in pixels, u to the right and v down; magnitudes are lengths in pixels unless they are called
shares.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, check_positive, in_float32

__all__ = [
    "averaged_exposure",
    "blur_condition",
    "blur_magnitude",
    "blur_noise",
    "blur_orientation",
    "dadeblur",
    "domain_magnitude",
    "exposure_flow",
    "magnitude_share",
]

LONGEST = 205.0
"""Pixels of the longest blur in the authors' training data, by which magnitudes are divided."""
_CHARBONNIER, _FLOOR = 1e-6, 1e-6


# ---- what a blur is ----------------------------------------------------------------------------------------------
def averaged_exposure(frames: Tensor, exposure: int, step: int, *, gamma: float = 1.0) -> Tensor:
    """Blurred frames out of sharp ones: the means of ``exposure`` frames on end, ``step`` apart.

        B_t = ( 1/E sum_k S_{t step + k}^gamma )^(1/gamma),      k = 0 .. E - 1

    Args:
        frames: (N, C, T, H, W) in [0, 1].
        exposure: E.
        step: frames from one exposure to the next.
        gamma: of the camera's response; 1 averages values as they are.

    Returns:
        (N, C, (T - E) // step + 1, H, W).

    Raises:
        UserError: too few frames, or no frames asked for.
    """
    check_floats(frames=frames)
    if frames.ndim != 5 or not 1 <= exposure <= frames.shape[2] or step < 1:
        raise UserError(
            f"frames {tuple(frames.shape)}: give (N, C, T, H, W), T at least exposure={exposure}, step >= 1"
        )
    light = frames if gamma == 1 else frames.clamp_min(0) ** gamma
    starts = range(0, frames.shape[2] - exposure + 1, step)
    found = torch.stack([light[:, :, s : s + exposure].mean(2) for s in starts], 2)
    return found if gamma == 1 else found ** (1 / gamma)


def exposure_flow(forward: Tensor, backward: Tensor) -> Tensor:
    """The motion of each pixel while the shutter is open, out of the flows between its sharp frames.

        f = ( sum_i f_{i -> i+1} - sum_i f_{i -> i-1} ) / 2           summed at each pixel, not chained

    Args:
        forward: (N, K, 2, H, W), from each frame to the next.
        backward: (N, K, 2, H, W), from each frame to the one before.

    Returns:
        (N, 2, H, W).
    """
    check_floats(forward=forward, backward=backward)
    _same("exposure_flow", forward, backward, "(N, K, 2, H, W)", 5, flows=2)
    return (forward.sum(1) - backward.sum(1)) / 2


def magnitude_share(flow: Tensor, *, longest: float = LONGEST) -> Tensor:
    """|f| / longest at each pixel: what the magnitude estimator learns; (N, 2, H, W) to (N, 1, H, W)."""
    check_positive(longest=longest)
    check_floats(flow=flow)
    if flow.ndim != 4 or flow.shape[1] != 2:
        raise UserError(f"magnitude_share: flow of shape {tuple(flow.shape)}; give (N, 2, H, W)")
    return flow.norm(dim=1, keepdim=True) / longest


def blur_orientation(ahead: Tensor, back: Tensor, *, floor: float = _FLOOR) -> Tensor:
    """The direction of the blur of a frame, of unit length: f / |f|, f = ( f_{t -> t+1} - f_{t -> t-1} ) / 2.

    Args:
        ahead: (N, 2, H, W), flow to the next frame.
        back: (N, 2, H, W), flow to the frame before.
        floor: pixels; where |f| is below, there is no direction, and (1, 0) stands for it.

    Returns:
        (N, 2, H, W); the other way round in time, its sign is the other.
    """
    check_floats(ahead=ahead, back=back)
    _same("blur_orientation", ahead, back, "(N, 2, H, W)", 4, flows=1)
    flow = (ahead - back) / 2
    length = flow.norm(dim=1, keepdim=True)
    right = torch.zeros_like(flow)
    right[:, 0] = 1
    return torch.where(length <= floor, right, flow / length.clamp_min(floor))  # NaN stays NaN


def domain_magnitude(magnitudes: Tensor, *, offset: float = 10.0, mode: str = "product") -> Tensor:
    """How strongly each frame of a video is to be blurred: its own layout, its neighbours' strength, and an offset.

        m_t = M_t / max M_t * ( M_{t-2} + M_{t-1} + M_{t+1} + M_{t+2} ) / 4 + offset,
        m_t = M_t + offset                                            for the first and the last two frames

    Args:
        magnitudes: M, (T, H, W) in pixels, not negative.
        offset: pixels, so that a sharp place is blurred at all.
        mode: "product" as above, "own" M_t + offset throughout, "neighbours" their mean and the offset.

    Returns:
        (T, H, W) in pixels. A frame whose magnitudes are all 0 is taken as evenly laid out.

    Raises:
        UserError: another shape, or an unknown mode.
    """
    check_choice("mode", mode, ("product", "own", "neighbours"))
    check_floats(magnitudes=magnitudes)
    if magnitudes.ndim != 3:
        raise UserError(f"domain_magnitude: magnitudes of shape {tuple(magnitudes.shape)}; give (T, H, W)")
    own = magnitudes + offset
    if mode == "own" or len(magnitudes) < 5:
        return own
    around = (magnitudes[:-4] + magnitudes[1:-3] + magnitudes[3:-1] + magnitudes[4:]) / 4
    inner = magnitudes[2:-2]
    peak = inner.amax((1, 2), keepdim=True)
    layout = torch.where(peak > 0, inner / peak.clamp_min(torch.finfo(inner.dtype).tiny), torch.ones_like(inner))
    found = own.clone()
    found[2:-2] = (around if mode == "neighbours" else layout * around) + offset
    return found


def blur_condition(orientation: Tensor, magnitude: Tensor, *, longest: float = LONGEST) -> Tensor:
    """(u, v, min(m / longest, 1)): what the blurring model is told; (N, 2, H, W) and (N, H, W) to (N, 3, H, W)."""
    check_positive(longest=longest)
    check_floats(orientation=orientation, magnitude=magnitude)
    known = orientation.ndim == 4 and orientation.shape[1] == 2
    if not known or magnitude.shape != (orientation.shape[0], *orientation.shape[2:]):
        shapes = f"{tuple(orientation.shape)} and magnitude {tuple(magnitude.shape)}"
        raise UserError(f"blur_condition: orientation {shapes}; give (N, 2, H, W) and (N, H, W)")
    return torch.cat((orientation, (magnitude / longest).clamp(max=1)[:, None]), 1)


# ---- what is learnt ----------------------------------------------------------------------------------------------
@in_float32
def blur_magnitude(predicted: Tensor, share: Tensor, *, scale_invariant: float = 0.0, eps: float = 1e-3) -> Tensor:
    """mean |p - m|, and with a weight w also w ( mean d^2 - (mean d)^2 / 2 ), d = log(p + eps) - log(m + eps).

    Args:
        predicted: p, (N, 1, H, W).
        share: m, the same shape, see `magnitude_share`.
        scale_invariant: w, the means are those of each picture (the authors' trainer calls such a term and
            doesn't define it); 0 leaves it out.
        eps: keeps the logarithm away from 0; p counts as 0 where it is below.
    """
    _same("blur_magnitude", predicted, share, "(N, 1, H, W)", 4)
    check_floats(predicted=predicted, share=share)
    loss = (predicted - share).abs().mean()
    if scale_invariant:
        d = ((predicted.clamp_min(0) + eps).log() - (share + eps).log()).flatten(1)
        loss = loss + scale_invariant * (d.square().mean(1) - d.mean(1).square() / 2).mean()
    return loss


@in_float32
def blur_noise(predicted: Tensor, noise: Tensor) -> Tensor:
    """ID-Blau's loss: mean sqrt( (eps_hat - eps)^2 + 1e-6 ), which its code calls l1; both (N, C, H, W)."""
    check_floats(predicted=predicted, noise=noise)
    _same("blur_noise", predicted, noise, "(N, C, H, W)", 4)
    return (predicted - noise).square().add(_CHARBONNIER).sqrt().mean()


@in_float32
def dadeblur(restored: Tensor, sharp: Tensor, *, bound: float | None = 0.5) -> Tensor:
    """mean ( clip(restored, -bound, bound) - sharp )^2: the fine-tuning loss on frames shifted to [-0.5, 0.5].

    Args:
        restored: (N, C, H, W), or with an axis of frames; outside the bound it gets no gradient.
        sharp: the same shape.
        bound: None doesn't clip. A sharp frame far beyond it (one in [0, 1]) is warned of.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, no pixels.
    """
    check_floats(restored=restored, sharp=sharp)
    if restored.shape != sharp.shape or 0 in sharp.shape:
        shapes = f"restored {tuple(restored.shape)} and sharp {tuple(sharp.shape)}"
        raise UserError(f"dadeblur: {shapes}; both must be of one shape, and not empty")
    if bound is not None and sharp.device.type == "cpu" and (reach := float(sharp.detach().abs().amax())) > 1.5 * bound:
        told = f"sharp reaches {reach:.3g} where restored is cut at {bound:g}; shift both by 0.5, or pass bound=None"
        warnings.warn(told, stacklevel=3)
    return ((restored if bound is None else restored.clamp(-bound, bound)) - sharp).square().mean()


def _same(name: str, first: Tensor, second: Tensor, form: str, axes: int, flows: int | None = None) -> None:
    """Refuse two tensors that aren't of one form; ``flows``: the axis of the two components of a flow."""
    known = first.shape == second.shape and first.ndim == axes and 0 not in first.shape
    if not known or (flows is not None and first.shape[flows] != 2):
        raise UserError(f"{name}: {tuple(first.shape)} and {tuple(second.shape)}; both must be {form}, and not empty")
