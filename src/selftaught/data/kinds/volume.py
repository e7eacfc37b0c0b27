"""Volumes: pictures of three dimensions, such as CT and MRI."""

from __future__ import annotations

from selftaught.data.kinds._kind import Kind

__all__ = ["Volume"]


class Volume(Kind):
    """A picture of three dimensions: uint8, uint16 or float32."""

    name, plural, description = "volume", "volumes", "a volume"
    layout, batched, channel_axis = "(D, H, W, C)", "(N, C, D, H, W)", 3
    pixels = spatial = True
