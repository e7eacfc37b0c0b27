"""TDL: a clip and itself with another still appearance agree, other times of the video do not (Wang et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import (
    check_entries,
    check_floats,
    check_labels,
    check_positive,
    check_views,
    in_float32,
    softplus,
)

__all__ = ["intra_video_mix", "tdl", "tdl_logits", "tdl_terms"]


@in_float32
def intra_video_mix(clip: Tensor, frame: Tensor, share: Tensor) -> Tensor:
    """x_t <- (1 - l) x_t + l x_r with one frame r of the same clip: what stands still changes, what moves does not.

    Args:
        clip: (N, C, T, H, W).
        frame: r, (N,) int64.
        share: l, (N,), 0 to 1; the paper draws 0.1 U(0, 1).

    Raises:
        UserError: another shape, a frame outside the clip, one share for several clips.
    """
    if clip.ndim != 5:
        raise UserError(f"clips need the shape (N, C, T, H, W), got {tuple(clip.shape)}")
    check_floats(clip=clip, share=share)
    check_labels(frame, len(clip), clip.shape[2])
    if share.shape != (len(clip),):
        raise UserError(f"share needs one number for each of the {len(clip)} clips, got {tuple(share.shape)}")
    still = clip[torch.arange(len(clip), device=clip.device), :, frame].unsqueeze(2)
    return clip + share.view(-1, 1, 1, 1, 1) * (still - clip)


@in_float32
def tdl_logits(q: Tensor, k: Tensor, negative: Tensor, queue: Tensor, *, temperature: float | Tensor = 0.07) -> Tensor:
    """[q.k, q.Queue, q.n] / tau, (N, 1 + K + 1): the first column is right. Arguments as of :func:`tdl`."""
    _check(q, k, negative, queue, temperature)
    positive, own = (q * k.detach()).sum(1, keepdim=True), (q * negative).sum(1, keepdim=True)
    return torch.cat([positive, q @ queue.detach().T, own], dim=1) / temperature


def tdl(q: Tensor, k: Tensor, negative: Tensor, queue: Tensor, *, temperature: float | Tensor = 0.07) -> Tensor:
    """Cross entropy of [q.k, q.Queue, q.n] / tau with target 0.

    Args:
        q: (N, D) of the anchors, unit vectors already.
        k: (N, D) of the positives by the momentum copy, unit vectors; a constant.
        negative: n, (N, D) of other clips of the same videos by the trained network, unit vectors; has a gradient.
        queue: (K, D) past keys, a constant; K may be 0.
        temperature: tau, above 0.

    Returns:
        A scalar. Where n = k and the queue is empty: log 2.

    Raises:
        UserError: shapes that don't fit, a temperature that isn't above 0.
    """
    return tdl_terms(q, k, negative, queue, temperature=temperature)["loss"]


@in_float32
def tdl_terms(
    q: Tensor, k: Tensor, negative: Tensor, queue: Tensor, *, temperature: float | Tensor = 0.07
) -> dict[str, Tensor]:
    """:func:`tdl` as ``loss``, ``contrast_acc``: the positive scores highest, ``own_acc``: higher than n alone."""
    logits = tdl_logits(q, k, negative, queue, temperature=temperature)
    rest = logits[:, 1:].logsumexp(1)
    seen = logits.detach()
    return {
        "loss": softplus(rest - logits[:, 0]).mean(),
        "contrast_acc": (seen.argmax(1) == 0).to(seen.dtype).mean(),
        "own_acc": (seen[:, 0] > seen[:, -1]).to(seen.dtype).mean(),
    }


def _check(q: Tensor, k: Tensor, negative: Tensor, queue: Tensor, temperature: float | Tensor) -> None:
    _, width = check_views(q, k, negative)
    check_entries(queue, width, minimum=0)
    check_positive(temperature=temperature)
