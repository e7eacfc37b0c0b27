"""Common corruptions of images: noise, blur, weather-like shifts and lossy storage, each at five strengths.

The kinds bear the names of ImageNet-C (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261), with its strengths for
noise, contrast and brightness. Blurs are measured in shares of the shorter side, so that they mean the same at every
size. Images have any number of channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from selftaught.errors import UserError

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


def _gaussian_noise(x: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return x + sigma * rng.standard_normal(x.shape, dtype=np.float32)


def _shot_noise(x: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(np.clip(x, 0, 1) * photons) / photons


def _impulse_noise(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    chance = rng.random(x.shape)
    return np.where(chance < share / 2, 0.0, np.where(chance < share, 1.0, x))


def _gaussian_blur(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    sigma = share * min(x.shape[:2])
    reach = max(1, int(np.ceil(3 * sigma)))
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return _filtered(x, np.outer(line, line))


def _defocus_blur(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    radius = share * min(x.shape[:2])
    reach = int(np.ceil(radius))
    away = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return _filtered(x, np.clip(radius + 0.5 - away, 0, 1))  # a disk whose rim covers its pixels in part


def _motion_blur(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    length, angle = share * min(x.shape[:2]), rng.uniform(0, np.pi)
    reach = max(1, int(np.ceil(length / 2)))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for step in np.linspace(-length / 2, length / 2, 8 * reach + 1):
        row, column = reach + step * np.sin(angle), reach + step * np.cos(angle)
        top, left = int(np.floor(row)), int(np.floor(column))
        for i, j in ((top, left), (top + 1, left), (top, left + 1), (top + 1, left + 1)):
            weight = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
            if weight:
                kernel[i, j] += weight
    return _filtered(x, kernel)


def _brightness(x: np.ndarray, shift: float, rng: np.random.Generator) -> np.ndarray:
    return x + shift


def _contrast(x: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * factor + mean


def _pixelate(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    height, width = x.shape[:2]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    coarse = [cv2.resize(channel, small, interpolation=cv2.INTER_AREA) for channel in _channels(x)]
    return np.stack([cv2.resize(c, (width, height), interpolation=cv2.INTER_NEAREST) for c in coarse], axis=-1)


def _jpeg_compression(x: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    bytes_ = (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
    parts = [np.ascontiguousarray(bytes_)] if x.shape[2] == 3 else _channels(bytes_)
    options = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    stored: list[Any] = [cv2.imdecode(cv2.imencode(".jpg", part, options)[1], cv2.IMREAD_UNCHANGED) for part in parts]
    found = stored[0] if x.shape[2] == 3 else np.stack(stored, axis=-1)
    return found.astype(np.float32) / 255


def _channels(x: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(x[..., c]) for c in range(x.shape[2])]


def _filtered(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    weights = kernel / kernel.sum()
    return np.stack([cv2.filter2D(c, -1, weights, borderType=cv2.BORDER_REFLECT_101) for c in _channels(x)], axis=-1)


_KINDS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "gaussian_blur": _gaussian_blur,
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
