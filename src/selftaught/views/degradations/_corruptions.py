"""What corruptions do to an image: noise, blur, lossy storage; functions of (image, strength, generator)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np


def gaussian_noise(x: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise of deviation ``sigma`` to an image (H, W, C) in [0, 1]; the result is not clipped."""
    return x + sigma * rng.standard_normal(x.shape, dtype=np.float32)


def shot_noise(x: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    """Count ``photons`` at white: Poisson noise, stronger the fewer they are."""
    return rng.poisson(np.clip(x, 0, 1) * photons) / photons


def impulse_noise(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Set a ``share`` of the values to 0 or 1, half of them each."""
    chance = rng.random(x.shape)
    return np.where(chance < share / 2, 0.0, np.where(chance < share, 1.0, x))


def gaussian_blur(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian whose deviation is a ``share`` of the shorter side."""
    sigma = share * min(x.shape[:2])
    reach = max(1, int(np.ceil(3 * sigma)))
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return filtered(x, np.outer(line, line))


def defocus_blur(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Blur by a disk whose radius is a ``share`` of the shorter side."""
    radius = share * min(x.shape[:2])
    reach = int(np.ceil(radius))
    away = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return filtered(x, np.clip(radius + 0.5 - away, 0, 1))  # a disk whose rim covers its pixels in part


def motion_blur(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Blur along a line, a ``share`` of the shorter side long, at an angle that is drawn."""
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
    return filtered(x, kernel)


def brightness(x: np.ndarray, shift: float, rng: np.random.Generator) -> np.ndarray:
    """Add ``shift`` to every value."""
    return x + shift


def contrast(x: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply the distance of every value from its channel's mean by ``factor``."""
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * factor + mean


def pixelate(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Average to a ``share`` of the resolution, and show the large pixels at the full one."""
    height, width = x.shape[:2]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    coarse = [cv2.resize(channel, small, interpolation=cv2.INTER_AREA) for channel in channels(x)]
    return np.stack([cv2.resize(c, (width, height), interpolation=cv2.INTER_NEAREST) for c in coarse], axis=-1)


def jpeg_compression(x: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Store as JPEG of ``quality`` 1 to 100 and read again; other than three channels one by one."""
    bytes_ = (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
    parts = [np.ascontiguousarray(bytes_)] if x.shape[2] == 3 else channels(bytes_)
    options = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    stored: list[Any] = [cv2.imdecode(cv2.imencode(".jpg", part, options)[1], cv2.IMREAD_UNCHANGED) for part in parts]
    found = stored[0] if x.shape[2] == 3 else np.stack(stored, axis=-1)
    return found.astype(np.float32) / 255


def channels(x: np.ndarray) -> list[np.ndarray]:
    """The channels (H, W) of an image (H, W, C), each contiguous, as OpenCV wants them."""
    return [np.ascontiguousarray(x[..., c]) for c in range(x.shape[2])]


def filtered(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Every channel filtered by a kernel brought to the sum 1, the border mirrored."""
    weights = kernel / kernel.sum()
    return np.stack([cv2.filter2D(c, -1, weights, borderType=cv2.BORDER_REFLECT_101) for c in channels(x)], axis=-1)
