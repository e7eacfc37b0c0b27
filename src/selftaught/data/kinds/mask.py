"""Masks: a whole number for each pixel of an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data.kinds._kind import Kind, stacked
from selftaught.errors import SampleError

__all__ = ["Mask"]


class Mask(Kind):
    """A class, a region or a flag for each pixel of an image, or for each voxel (D, H, W) of a volume; stacked as
    int64.
    """

    name, plural, description = "mask", "masks", "a mask"
    layout, batched = "(H, W)", "(N, H, W)"
    numbers = "ui"
    spatial = True

    def check(self, sample: Any, name: str) -> None:
        """See that a sample is a mask, of an image or of a volume.

        Raises:
            SampleError: other axes, zero size, no whole numbers.
        """
        solid = isinstance(sample, np.ndarray) and sample.ndim == 3 and sample.size
        super().check(sample.reshape(-1, sample.shape[-1]) if solid else sample, name)

    def stack(self, samples: list[np.ndarray]) -> Any:
        """Masks of one size as (N, H, W) int64."""
        return stacked(samples, self).long()

    def adopt(self, sample: Any, name: str) -> np.ndarray:
        """A grey picture (H, W, 1), one whose colours are all grey (H, W, 3), or (H, W), as (H, W); a volume of one
        channel (D, H, W, 1), its numbers of any type, as (D, H, W).

        Raises:
            SampleError: a colour picture, or one whose values are no whole numbers.
        """
        mask = np.asarray(sample)
        if mask.ndim == 4 and mask.shape[3] == 1:
            return _solid(mask[..., 0], name)
        if mask.dtype == bool:
            mask = mask.astype(np.uint8)
        if mask.ndim == 3:
            if (mask != mask[:, :, :1]).any():
                raise SampleError(name, "a colour picture is no mask; save the numbers of its classes as grey values")
            mask = np.ascontiguousarray(mask[:, :, 0])
        self.check(mask, name)
        return mask


def _solid(mask: np.ndarray, name: str) -> np.ndarray:
    """A volume of labels as whole numbers: files of masks often hold floats."""
    whole = np.rint(mask).astype(np.int32)
    if (whole != mask).any():
        raise SampleError(name, "a mask holds whole numbers, the class of every voxel; this volume doesn't")
    return whole
