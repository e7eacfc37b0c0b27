"""RotNet on clips: by how many quarter turns is a clip rotated (Jing et al., 2018, arXiv 1811.11387)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_labels, in_float32

__all__ = ["rotate_clips", "video_rotnet", "video_rotnet_all", "video_rotnet_terms"]


def rotate_clips(clips: Tensor, turns: Tensor) -> Tensor:
    """Turn whole clips about the middle of their frames by quarters, counter-clockwise; no pixel is interpolated.

    Args:
        clips: (N, C, T, H, H), square frames.
        turns: (N,) int64, 0 to 3 quarter turns; all frames of a clip turn alike.

    Raises:
        UserError: frames that aren't square, turns outside 0 to 3.
    """
    _check_clips(clips)
    check_labels(turns, len(clips), 4)
    out = clips.clone()
    for k in (1, 2, 3):
        rows = (turns == k).nonzero().flatten()
        out[rows] = torch.rot90(clips[rows], k, (3, 4))
    return out


def video_rotnet_all(clips: Tensor, rotations: int = 4) -> tuple[Tensor, Tensor]:
    """All rotations of every clip in one batch, rotation after rotation, and what they are.

    Args:
        clips: (N, C, T, H, H).
        rotations: R: 2 (0 and 90 degrees), 3 (and 180) or 4.

    Returns:
        (R N, C, T, H, H) and the quarter turns (R N,) int64.

    Raises:
        UserError: as `rotate_clips`; R outside 2 to 4.
    """
    _check_clips(clips)
    if rotations not in (2, 3, 4):
        raise UserError(f"rotations={rotations}: choose 2, 3 or 4")
    turned = torch.cat([torch.rot90(clips, k, (3, 4)) for k in range(rotations)])
    return turned, torch.arange(rotations, device=clips.device).repeat_interleave(len(clips))


@in_float32
def video_rotnet(logits: Tensor, turns: Tensor) -> Tensor:
    """Mean cross entropy of (N, R) logits with the quarter turns (N,) int64."""
    if logits.ndim != 2 or not len(logits):
        raise UserError(f"logits need the shape (batch, rotations), got {tuple(logits.shape)}")
    check_floats(logits=logits)
    check_labels(turns, len(logits), logits.shape[1])
    return cross_entropy(logits, turns)


def video_rotnet_terms(logits: Tensor, turns: Tensor) -> dict[str, Tensor]:
    """:func:`video_rotnet` as ``loss``, and ``pretext_accuracy``."""
    loss = video_rotnet(logits, turns)
    return {"loss": loss, "pretext_accuracy": (logits.detach().argmax(1) == turns).float().mean()}


def _check_clips(clips: Tensor) -> None:
    if clips.ndim != 5 or clips.shape[3] != clips.shape[4]:
        raise UserError(f"clips need the shape (N, C, T, H, H) with square frames, got {tuple(clips.shape)}")
