"""Pictures of any number of channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data.decoding import is_pillow, pil_to_array
from selftaught.data.kinds._kind import Kind
from selftaught.data.pixels import as_hwc, conform

__all__ = ["Image"]


class Image(Kind):
    """A picture: uint8, uint16 or float32."""

    name, plural, description = "image", "images", "a picture"
    layout, batched, channel_axis = "(H, W, C)", "(N, C, H, W)", 2
    pixels = spatial = picture = True

    def conform(self, sample: np.ndarray, channels: int, name: str, convert: bool = False) -> np.ndarray:
        """See `selftaught.data.pixels.conform`: grey to RGB, RGBA on white, with `convert` colour to grey."""
        return conform(sample, channels, name, convert)

    def misfit(self, have: int, wanted: int, bands: bool = False) -> str:
        """As for every kind; grey is shown as RGB, and RGBA laid on white."""
        if wanted == 3 and (have == 1 or (have == 4 and not bands)):
            return ""
        if (have, wanted) == (4, 3):
            return (
                "has 4 channels, of which the fourth is not marked as transparency, and the run was trained on 3; "
                "give it pictures of the three that it knows"
            )
        return super().misfit(have, wanted, bands)

    def adopt(self, sample: Any, name: str) -> np.ndarray:
        """A Pillow image, or an array (H, W), (H, W, C) or (C, H, W), as (H, W, C); see `pixels.as_hwc`."""
        if is_pillow(sample):
            return as_hwc(pil_to_array(sample), name, "hwc")
        return as_hwc(np.asarray(sample), name)
