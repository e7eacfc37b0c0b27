"""Common corruptions of images: noise, blur, weather-like shifts and lossy storage, each at five strengths.

The kinds bear the names of ImageNet-C (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261), with its strengths for
noise, contrast and brightness. Blurs are measured in shares of the shorter side, so that they mean the same at every
size. Images have any number of channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from selftaught.errors import UserError
from selftaught.views.degradations import _corruptions as pixels

__all__ = ["CORRUPTIONS", "corrupt"]

SEVERITIES = (1, 2, 3, 4, 5)
_STRENGTHS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "gaussian_blur": (0.01, 0.015, 0.02, 0.03, 0.04),
    "defocus_blur": (0.015, 0.02, 0.03, 0.04, 0.055),
    "motion_blur": (0.05, 0.075, 0.1, 0.15, 0.2),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": (25, 18, 15, 10, 7),
}
CORRUPTIONS = tuple(_STRENGTHS)
"""Names of the kinds."""


def corrupt(image: np.ndarray, kind: str, severity: int = 3, *, rng: np.random.Generator | None = None) -> np.ndarray:
    """One image with one corruption.

    Args:
        image: (H, W, C) float in [0, 1], or uint8.
        kind: one of ``CORRUPTIONS``.
        severity: 1 (weak) to 5 (strong).
        rng: draws the noise, and the direction of a motion; None takes a new one of seed 0.

    Returns:
        (H, W, C) float32 in [0, 1].

    Raises:
        UserError: unknown kind, a severity outside 1 to 5, an image that isn't (H, W, C).
    """
    if kind not in _STRENGTHS:
        raise UserError(f"corruption: no {kind!r}; one of {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity}: it may be 1 to 5")
    if image.ndim != 3:
        raise UserError(f"image: shape {image.shape}; pass (H, W, C)")
    plain = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    rng = np.random.default_rng(0) if rng is None else rng
    found = _KINDS[kind](plain, _STRENGTHS[kind][severity - 1], rng)
    return np.clip(found, 0, 1).astype(np.float32).reshape(plain.shape)


_KINDS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": pixels.gaussian_noise,
    "shot_noise": pixels.shot_noise,
    "impulse_noise": pixels.impulse_noise,
    "gaussian_blur": pixels.gaussian_blur,
    "defocus_blur": pixels.defocus_blur,
    "motion_blur": pixels.motion_blur,
    "brightness": pixels.brightness,
    "contrast": pixels.contrast,
    "pixelate": pixels.pixelate,
    "jpeg_compression": pixels.jpeg_compression,
}
