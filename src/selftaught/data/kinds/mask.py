"""Masks: a whole number for each pixel of an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data.kinds._kind import Kind, stacked
from selftaught.errors import SampleError

__all__ = ["Mask"]


class Mask(Kind):
    """A class, a region or a flag for each pixel; stacked as int64."""

    name, plural, description = "mask", "masks", "a mask"
    layout, batched = "(H, W)", "(N, H, W)"
    numbers = "ui"
    spatial = True

    def stack(self, samples: list[np.ndarray]) -> Any:
        """Masks of one size as (N, H, W) int64."""
        return stacked(samples, self).long()

    def adopt(self, sample: Any, name: str) -> np.ndarray:
        """A grey picture (H, W, 1), one whose colours are all grey (H, W, 3), or (H, W), as (H, W).

        Raises:
            SampleError: a colour picture, or one whose values are no whole numbers.
        """
        mask = np.asarray(sample)
        if mask.dtype == bool:
            mask = mask.astype(np.uint8)
        if mask.ndim == 3:
            if (mask != mask[:, :, :1]).any():
                raise SampleError(name, "a colour picture is no mask; save the numbers of its classes as grey values")
            mask = np.ascontiguousarray(mask[:, :, 0])
        self.check(mask, name)
        return mask
