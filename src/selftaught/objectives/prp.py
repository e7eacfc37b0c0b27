"""PRP: which rate was a clip sampled at, and what lies between its frames (Yao et al., CVPR 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_labels, in_float32

__all__ = ["motion_mask", "prp", "prp_reconstruction", "prp_target", "prp_terms"]


@in_float32
def motion_mask(clip: Tensor, *, patch: int = 16, low: float = 0.8, high: float = 2.0) -> Tensor:
    """How much moves in every patch of every frame, as weights from ``low`` to ``high``.

    The absolute difference to the frame before (to the one after, for the first), averaged over channels and patches,
    is mapped linearly for each frame: its stillest patch to ``low``, its liveliest to ``high``. A frame in which every
    patch moves alike weighs 1.

    Args:
        clip: (N, C, T, H, W), T of 2 or more.
        patch: side of a patch in pixels; smaller ones at the edges (default 16).
        low: smallest weight (default 0.8).
        high: largest weight (default 2.0).

    Returns:
        (N, 1, T, H, W), no gradient.

    Raises:
        UserError: another shape, a single frame, no patch.
    """
    if clip.ndim != 5 or clip.shape[2] < 2 or 0 in clip.shape:
        raise UserError(f"motion_mask: a clip (N, C, T, H, W) of two frames or more, got {tuple(clip.shape)}")
    check_floats(clip=clip)
    if patch < 1:
        raise UserError(f"motion_mask: patch={patch} must be 1 or more")
    with torch.no_grad():
        change = (clip[:, :, 1:] - clip[:, :, :-1]).abs().mean(1)
        change = torch.cat([change[:, :1], change], dim=1)
        cells = avg_pool2d(change, min(patch, *change.shape[2:]), ceil_mode=True, count_include_pad=False)
        least, most = cells.amin((2, 3), keepdim=True), cells.amax((2, 3), keepdim=True)
        span = most - least
        share = (cells - least) / torch.where(span > 0, span, 1.0)
        weight = torch.where(span > 0, low + (high - low) * share, 1.0)
        side = min(patch, *change.shape[2:])
        grown = interpolate(weight, scale_factor=side, mode="nearest")
        return grown[:, None, :, : clip.shape[3], : clip.shape[4]]


def prp_target(clip: Tensor, fine: Tensor, is_slowest: Tensor) -> tuple[Tensor, Tensor]:
    """The clip at twice its rate, and which of its frames count.

    Where the clip was sampled at rate 1 nothing lies between two frames: there stands their mean (after the last, the
    last again), and these frames don't count.

    Args:
        clip: (N, C, T, H, W).
        fine: (N, C, 2 T, H, W), the stretch at twice the rate; samples of rate 1 are not looked at.
        is_slowest: (N,) bool, True where the rate is 1.

    Returns:
        the target (N, C, 2 T, H, W), and flags (N, 2 T) bool, True where a frame counts.

    Raises:
        UserError: shapes that don't fit.
    """
    frames = clip.shape[2] if clip.ndim == 5 else 0
    if clip.ndim != 5 or fine.shape != (*clip.shape[:2], 2 * frames, *clip.shape[3:]):
        raise UserError(f"prp_target: a clip (N, C, T, H, W) and twice its frames, got {tuple(clip.shape)}, "
                        f"{tuple(fine.shape)}")  # fmt: skip
    if is_slowest.shape != (len(clip),) or is_slowest.dtype != torch.bool:
        raise UserError(f"prp_target: is_slowest needs ({len(clip)},) bool, got {tuple(is_slowest.shape)}")
    after = torch.cat([clip[:, :, 1:], clip[:, :, -1:]], dim=2)
    between = torch.stack([clip, (clip + after) / 2], dim=3).flatten(2, 3)
    target = torch.where(is_slowest.view(-1, 1, 1, 1, 1), between, fine.to(between.dtype))
    odd = torch.arange(2 * frames, device=clip.device) % 2 == 1
    return target, ~(is_slowest[:, None] & odd)


@in_float32
def prp_reconstruction(out: Tensor, target: Tensor, mask: Tensor | None = None, flags: Tensor | None = None) -> Tensor:
    """L_rec: mean over samples of the mean over frames that count, pixels and channels of M (out - target)^2.

    Args:
        out: (N, C, T, H, W).
        target: the same shape.
        mask: M, (N, C, T, H, W) or (N, 1, T, H, W); None weighs all alike.
        flags: (N, T) bool, frames that count; None: all. A sample without one adds 0.

    Raises:
        UserError: shapes that don't fit.
    """
    if out.ndim != 5 or out.shape != target.shape or not len(out):
        raise UserError(f"out and target need one shape (N, C, T, H, W), got {tuple(out.shape)}, {tuple(target.shape)}")
    check_floats(out=out, target=target, mask=mask)
    error = (out - target).square()
    if mask is not None:
        if mask.shape not in (out.shape, (len(out), 1, *out.shape[2:])):
            raise UserError(f"mask needs the shape of out, or one channel, got {tuple(mask.shape)}")
        error = error * mask
    frames = error.mean((1, 3, 4))
    if flags is None:
        return frames.mean()
    if flags.shape != frames.shape or flags.dtype != torch.bool:
        raise UserError(f"flags need {tuple(frames.shape)} bool, got {flags.dtype} {tuple(flags.shape)}")
    return ((frames * flags).sum(1) / flags.sum(1).clamp_min(1)).mean()


def prp(
    out: Tensor,
    target: Tensor,
    logits: Tensor,
    rate: Tensor,
    *,
    mask: Tensor | None = None,
    flags: Tensor | None = None,
    weight: float = 0.1,
) -> Tensor:
    """L = L_rec + weight CE; see :func:`prp_terms`."""
    return prp_terms(out, target, logits, rate, mask=mask, flags=flags, weight=weight)["loss"]


@in_float32
def prp_terms(
    out: Tensor,
    target: Tensor,
    logits: Tensor,
    rate: Tensor,
    *,
    mask: Tensor | None = None,
    flags: Tensor | None = None,
    weight: float = 0.1,
) -> dict[str, Tensor]:
    """L = L_rec + 0.1 CE, the whole objective of playback-rate perception.

    Args:
        out: (N, C, T, H, W) completed clips.
        target: the same shape.
        logits: (N, rates).
        rate: (N,) int64, which rate each clip was sampled at.
        mask: see :func:`prp_reconstruction`.
        flags: likewise.
        weight: of the cross entropy, 0 or more.

    Returns:
        ``loss``, ``reconstruction``, ``classification`` and ``pretext_accuracy``.

    Raises:
        UserError: shapes that don't fit, labels out of range, a negative weight.
    """
    if not weight >= 0:
        raise UserError(f"weight must be 0 or more, got {weight}")
    rebuilt = prp_reconstruction(out, target, mask, flags)
    if logits.ndim != 2 or len(logits) != len(out):
        raise UserError(f"logits need the shape ({len(out)}, rates), got {tuple(logits.shape)}")
    check_floats(logits=logits)
    check_labels(rate, len(logits), logits.shape[1])
    told = cross_entropy(logits, rate)
    right = (logits.detach().argmax(1) == rate).to(logits.dtype).mean()
    return {
        "loss": rebuilt + weight * told,
        "reconstruction": rebuilt,
        "classification": told,
        "pretext_accuracy": right,
    }
