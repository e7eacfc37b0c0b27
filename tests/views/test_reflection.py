"""The recipes of reflections against literal transcriptions on arrays, and their facts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from scipy.signal import convolve2d
from scipy.stats import norm

from selftaught import views
from selftaught.errors import UserError

RNG = np.random.default_rng(0)
T, R = (0.3 + 0.7 * RNG.random((40, 36, 3)) for _ in range(2))


def gaussian(size: int, sigma: float) -> np.ndarray:
    kernel = np.array([math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)])
    return kernel / kernel.sum()


def test_ceilnet_by_hand() -> None:
    kernel = np.outer(gaussian(11, 3.1), gaussian(11, 3.1))
    blurred = np.dstack([convolve2d(R[..., c], kernel, mode="same") for c in range(3)])
    mixed = T + blurred
    assert mixed.max() > 1
    excess = (mixed[mixed > 1].mean() - 1) * 1.3
    layer = np.clip(blurred - excess, 0, 1)
    found = views.reflect_ceilnet(T, R, sigma=3.1)
    np.testing.assert_allclose(found.reflection, layer, atol=1e-12)
    np.testing.assert_allclose(found.blended, np.clip(T + layer, 0, 1), atol=1e-12)
    dim = views.reflect_ceilnet(T / 3, R / 3, sigma=2.0)  # nothing is overexposed: a plain sum
    np.testing.assert_allclose(dim.blended, T / 3 + views.gaussian_blur(R / 3, 2.0, 11, border="zero"), atol=1e-12)


def test_perceptual_by_hand() -> None:
    sigma, factor, alpha, down, across = 1.7, 1.1, 0.85, 0.3, 0.8
    size = int(2 * np.ceil(2 * sigma) + 1)
    kernel = gaussian(size, sigma)
    light, blurred = T**2.2, correlate1d(correlate1d(R**2.2, kernel, 0, mode="mirror"), kernel, 1, mode="mirror")
    for c in range(3):
        mixed = light[..., c] + blurred[..., c]
        mean = max(1.0, mixed[mixed > 1].mean())
        blurred[..., c] -= (mean - 1) * factor
    layer = blurred.clip(0, 1)
    bins = np.diff(norm.cdf(np.linspace(-3 - 7 / 560 / 2, 3 + 7 / 560 / 2, 561)))
    mask = np.sqrt(np.outer(bins, bins))
    mask /= mask.max()
    np.testing.assert_allclose(views.vignette(), mask, atol=1e-9)
    top, left = int(down * (560 - 10 - 40)), int(across * (560 - 10 - 36))
    layer = layer * mask[top : top + 40, left : left + 36, None]
    found = views.reflect_perceptual(T, R, sigma=sigma, factor=factor, alpha=alpha, down=down, across=across)
    np.testing.assert_allclose(found.blended, ((layer + alpha * light) ** (1 / 2.2)).clip(0, 1), atol=1e-8)
    np.testing.assert_allclose(found.reflection, layer ** (1 / 2.2), atol=1e-8)


def test_a_mixture_and_batches_of_numbers() -> None:
    found = views.reflect_linear(T, R, alpha=0.7, sigma=1.0)
    np.testing.assert_allclose(found.blended, 0.7 * T + 0.3 * views.gaussian_blur(R, 1.0), atol=1e-12)
    one = np.full((20, 20, 3), 0.4)
    np.testing.assert_allclose(views.reflect_linear(one, one, alpha=0.7).blended, one, atol=1e-12)
    t, r = (torch.from_numpy(np.stack([x, x[::-1].copy()])).permute(0, 3, 1, 2) for x in (T, R))
    numbers = {
        name: torch.tensor(pair, dtype=torch.float64)
        for name, pair in (
            ("sigma", (2.0, 4.0)), ("factor", (1.1, 1.3)), ("alpha", (0.8, 0.9)), ("down", (0.1, 0.5)),
            ("across", (0.9, 0)),
        )
    }  # fmt: skip
    for recipe in views.REFLECTIONS:
        together = views.reflect(t, r, recipe, **numbers).blended
        for n in range(2):
            alone = {name: float(value[n]) for name, value in numbers.items()}
            array = (t[n].permute(1, 2, 0).numpy(), r[n].permute(1, 2, 0).numpy())
            made = views.reflect(*array, recipe, **alone).blended
            np.testing.assert_allclose(together[n].permute(1, 2, 0).numpy(), made, atol=1e-9)
            assert 0 <= made.min() <= made.max() <= 1


def test_large_pictures_have_a_larger_vignette_and_what_is_refused() -> None:
    big = np.full((30, 700, 1), 0.5, np.float32)
    assert views.reflect_perceptual(big, big, sigma=1.0, down=0.99, across=0.99).blended.shape == big.shape
    with pytest.raises(UserError, match="one shape"):
        views.reflect_linear(T, R[:10])
    with pytest.raises(UserError, match="smaller than a blur"):
        views.reflect_linear(T[:3], R[:3], sigma=4.0)
    with pytest.raises(UserError, match="perceptual, ceilnet"):
        views.GlassDraw("mirror")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="one for each"):
        views.reflect_linear(T, R, sigma=[1.0, 2.0])
