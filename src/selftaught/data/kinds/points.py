"""Point clouds."""

from __future__ import annotations

from typing import Any

from selftaught.data.kinds._kind import Kind
from selftaught.errors import SampleError

__all__ = ["Points"]


class Points(Kind):
    """P points, each x y z and then its F features, float32."""

    name, plural, description = "points", "point clouds", "a point cloud"
    layout, batched, channel_axis = "(P, 3+F)", "(N, P, 3+F)", 1
    numbers = "f"

    def check(self, sample: Any, name: str) -> None:
        """At least three columns; see `Kind.check`."""
        super().check(sample, name)
        if sample.shape[1] < 3:
            raise SampleError(name, f"{sample.shape[1]} columns where a point has x y z")

    def _channels_first(self, batch: Any) -> Any:
        return batch
