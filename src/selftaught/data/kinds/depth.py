"""Depth maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data.kinds._kind import Kind
from selftaught.errors import SampleError

__all__ = ["Depth"]


class Depth(Kind):
    """How far away each pixel of an image is, float32, in the unit of the source; 0 where it isn't known."""

    name, plural, description = "depth", "depth maps", "a depth map"
    layout, batched, channel_axis = "(H, W, 1)", "(N, 1, H, W)", 2
    numbers = "f"
    spatial = True

    def check(self, sample: Any, name: str) -> None:
        """One channel, nothing below zero; see `Kind.check`."""
        super().check(sample, name)
        if sample.shape[2] != 1:
            raise SampleError(name, f"{sample.shape[2]} channels where a depth map has 1")
        if sample.min() < 0:
            raise SampleError(name, "depth below zero")

    def adopt(self, sample: Any, name: str) -> np.ndarray:
        """A grey picture of whole or float numbers, (H, W) or (H, W, 1), as float32 with its values unchanged."""
        depth = np.asarray(sample)
        depth = np.ascontiguousarray(depth if depth.ndim > 2 else depth[..., None], dtype=np.float32)
        self.check(depth, name)
        return depth
