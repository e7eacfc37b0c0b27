"""Series of numbers: sensors, signals."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data.kinds._kind import Kind
from selftaught.data.pixels import finite
from selftaught.errors import SampleError

__all__ = ["Series", "as_ct"]


class Series(Kind):
    """Channels over time, float32."""

    name, plural, description = "series", "series", "a series"
    layout, batched, channel_axis = "(C, T)", "(N, C, T)", 0
    numbers = "f"
    encoder = "resnet1d"
    counted = "windows"

    def adopt(self, sample: Any, name: str) -> np.ndarray:
        """See `as_ct`."""
        return as_ct(np.asarray(sample), name)


def as_ct(series: np.ndarray, name: str) -> np.ndarray:
    """A single series (T,), (C, T) or (T, C) as (C, T) float32: time is the last axis, unless the first is at least
    twice as long.

    Raises:
        SampleError: other axes, zero length, not numbers, NaN or infinite values.
    """
    if series.ndim not in (1, 2) or series.dtype.kind not in "uifb":
        raise SampleError(name, f"{series.dtype} of {series.ndim} axes is no series")
    if not series.size:
        raise SampleError(name, "zero length")
    series = np.atleast_2d(series)
    series = series.T if series.shape[0] >= 2 * series.shape[1] else series
    return finite(np.ascontiguousarray(series, dtype=np.float32), name)
