"""Values: numbers that are known of a sample (an age, an ejection fraction)."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data.kinds._kind import Kind, stacked
from selftaught.data.pixels import finite
from selftaught.errors import SampleError

__all__ = ["Value"]


class Value(Kind):
    """One number, or a vector (K,) of them."""

    name, plural, description = "value", "values", "a value"
    layout, batched = "() or (K,)", "(N,) or (N, K)"

    def check(self, sample: Any, name: str) -> None:
        """A number or a vector of numbers, finite."""
        array = np.asarray(sample)
        if array.ndim > 1 or not array.size or array.dtype.kind not in "uif":
            raise SampleError(name, f"{array.dtype} of {array.ndim} axes where a value is a number or a vector")
        finite(array, name)

    def stack(self, samples: list[Any]) -> Any:
        """Values as (N,) or (N, K) float32."""
        return stacked([np.asarray(s, dtype=np.float32) for s in samples], self)
