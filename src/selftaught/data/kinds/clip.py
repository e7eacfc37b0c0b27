"""Clips: frames of a video in the order of time."""

from __future__ import annotations

from selftaught.data.kinds._kind import Kind

__all__ = ["Clip"]


class Clip(Kind):
    """Frames of one size: uint8, uint16 or float32."""

    name, plural, description = "clip", "clips", "a clip"
    layout, batched, channel_axis = "(T, H, W, C)", "(N, C, T, H, W)", 3
    pixels = spatial = framed = True
