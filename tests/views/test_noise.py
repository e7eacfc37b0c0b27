"""Degradations have the moments that their docstrings promise."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.views import noise

FLAT = np.full((256, 256, 3), 0.5, np.float32)


def test_gaussian_is_white_with_the_given_sigma() -> None:
    residual = noise.gaussian(FLAT, 0.1, 0).astype(np.float64) - FLAT
    assert abs(residual.std() - 0.1) < 0.001
    assert abs(residual.mean()) < 0.001
    assert abs(np.corrcoef(residual[:, 1:].ravel(), residual[:, :-1].ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_correlated_noise_has_unit_variance_everywhere_and_a_triangular_correlation(kernel: int) -> None:
    residual = np.stack([noise.correlated(FLAT, 0.1, seed, kernel) for seed in range(4)]).astype(np.float64) - 0.5
    assert abs(residual.std() - 0.1) < 0.002
    assert abs(residual[:, 0].std() - 0.1) < 0.01
    assert abs(residual[:, :, -1].std() - 0.1) < 0.01
    for lag in (1, 2, 3):
        found = np.corrcoef(residual[:, :, lag:].ravel(), residual[:, :, :-lag].ravel())[0, 1]
        assert abs(found - max(0, 1 - lag / kernel)) < 0.03
    diagonal = np.corrcoef(residual[:, 1:, 1:].ravel(), residual[:, :-1, :-1].ravel())[0, 1]
    assert abs(diagonal - max(0, 1 - 1 / kernel) ** 2) < 0.03
    assert abs(np.corrcoef(residual[..., 0].ravel(), residual[..., 1].ravel())[0, 1]) < 0.03


def test_poisson_gaussian_variance_grows_with_the_signal() -> None:
    for level in (10.0, 100.0):
        image = np.full((256, 256), level, np.float64)
        noisy = noise.poisson_gaussian(image, gain=2.0, sigma=3.0, rng=1)
        assert abs(noisy.mean() - level) < 0.2
        assert abs(noisy.var() / (2.0 * level + 9.0) - 1) < 0.03
    assert noise.poisson_gaussian(image, 0.0, 0.0, 1).std() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_dtype_and_shape_are_kept_and_whole_numbers_are_clipped(dtype: type) -> None:
    image = np.array([[0, 250], [128, 3]], dtype)
    for make in (
        lambda: noise.gaussian(image, 40, 0),
        lambda: noise.correlated(image, 40, 0),
        lambda: noise.poisson_gaussian(image, 1.0, 40, 0),
    ):
        first, second = make(), make()
        assert first.dtype == dtype
        assert first.shape == image.shape
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(noise.gaussian(image, 0, 0), image)
    assert noise.gaussian(np.zeros((99, 99), np.uint8), 5, 0).min() == 0


def test_bad_amounts_are_refused() -> None:
    for make in (
        lambda: noise.gaussian(FLAT, -1, 0),
        lambda: noise.gaussian(FLAT, float("nan"), 0),
        lambda: noise.correlated(FLAT, 1, 0, kernel=0),
        lambda: noise.poisson_gaussian(FLAT, -2, 1, 0),
        lambda: noise.gaussian(FLAT[0, 0], 1, 0),
    ):
        with pytest.raises(UserError, match="noise:"):
            make()
