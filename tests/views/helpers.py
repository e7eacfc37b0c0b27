"""Real pixels for the view tests: photographs that ship with scikit-image, in any size and number of channels."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from skimage import data


@lru_cache(maxsize=8)
def _photograph(which: int) -> np.ndarray:
    return (data.astronaut, data.coffee, data.chelsea)[which % 3]()


def photo(height: int, width: int, channels: int = 3, which: int = 0) -> np.ndarray:
    """(height, width, channels) uint8; channels beyond three are the photograph again, mirrored and with grain."""
    base = cv2.resize(_photograph(which), (width, height), interpolation=cv2.INTER_AREA)
    if channels <= 3:
        return np.ascontiguousarray(base[..., :channels])
    grain = np.random.default_rng(which).integers(-30, 30, (height, width, channels))
    tiled = np.concatenate([base, base[:, ::-1]] * (channels // 6 + 1), 2)[..., :channels]
    return np.clip(tiled + grain, 0, 255).astype(np.uint8)
