"""Degradations for restoration: noise added to clean images, in the units of the image itself.

``sigma`` counts in the image's own values: 25 for 8-bit grey levels is 25 / 255 for floats in [0, 1]. The dtype is
kept: whole-number images are rounded and clipped to their type's range, floats are not clipped.
"""

from __future__ import annotations

import numpy as np

from selftaught.errors import UserError

__all__: list[str] = []  # reached as views.noise.NAME


def _finish(noisy: np.ndarray, like: np.ndarray) -> np.ndarray:
    if not np.issubdtype(like.dtype, np.integer):
        return noisy.astype(like.dtype)
    limits = np.iinfo(like.dtype)
    return np.clip(np.rint(noisy), limits.min, limits.max).astype(like.dtype)


def _check(image: np.ndarray, **amounts: float) -> None:
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
        raise UserError(f"noise: an image is an array (H, W) or (H, W, C), got {getattr(image, 'shape', type(image))}")
    for name, amount in amounts.items():
        if not np.isfinite(amount) or amount < 0:
            raise UserError(f"noise: {name} must be zero or a positive number, got {amount!r}")


def gaussian(image: np.ndarray, sigma: float, rng: np.random.Generator | int) -> np.ndarray:
    """White Gaussian noise: image + sigma * n, n ~ N(0, 1) for each value.

    Args:
        image: (H, W) or (H, W, C), any dtype.
        sigma: standard deviation, in the image's units.
        rng: generator or seed.

    Returns:
        The noisy image, same shape and dtype.
    """
    _check(image, sigma=sigma)
    noise = np.random.default_rng(rng).standard_normal(image.shape)
    return _finish(image + sigma * noise, image)


def correlated(image: np.ndarray, sigma: float, rng: np.random.Generator | int, kernel: int = 3) -> np.ndarray:
    """Gaussian noise that neighbours share, like that of a camera's JPEG: white noise under a box, rescaled.

    The mean of kernel**2 independent values has variance 1 / kernel**2, so the smoothed field is multiplied by
    ``kernel``; two values d pixels apart in a row then correlate by max(0, 1 - d / kernel). Channels are independent.

    Args:
        image: (H, W) or (H, W, C), any dtype.
        sigma: standard deviation of every value's noise, in the image's units.
        rng: generator or seed.
        kernel: side of the box in pixels (default 3; 1 is white noise).

    Returns:
        The noisy image, same shape and dtype.
    """
    _check(image, sigma=sigma)
    if not isinstance(kernel, int) or kernel < 1:
        raise UserError(f"noise: kernel is a whole number of pixels, at least 1, got {kernel!r}")
    height, width = image.shape[:2]
    field = np.random.default_rng(rng).standard_normal((height + kernel - 1, width + kernel - 1, *image.shape[2:]))
    for axis, size in ((0, height), (1, width)):
        shifted = [np.take(field, np.arange(start, start + size), axis=axis) for start in range(kernel)]
        field = sum(shifted[1:], shifted[0]) / np.sqrt(kernel)
    return _finish(image + sigma * field, image)


def poisson_gaussian(image: np.ndarray, gain: float, sigma: float, rng: np.random.Generator | int) -> np.ndarray:
    """A sensor's noise: gain * Poisson(image / gain) + sigma * n, n ~ N(0, 1) (Foi et al. 2008).

    The mean is the image; the variance is gain * image + sigma**2.

    Args:
        image: (H, W) or (H, W, C), any dtype, values >= 0 (negative ones count as 0 photons).
        gain: image units per photon; 0 leaves the photon noise out.
        sigma: standard deviation of the read-out noise, in the image's units.
        rng: generator or seed.

    Returns:
        The noisy image, same shape and dtype.
    """
    _check(image, gain=gain, sigma=sigma)
    rng = np.random.default_rng(rng)
    clean = image.astype(np.float64)
    shot = gain * rng.poisson(np.maximum(clean, 0) / gain) if gain else clean
    return _finish(shot + sigma * rng.standard_normal(image.shape), image)
