"""Pictures at night: kernels of random walks, the camera model, clipped lights."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught import views
from selftaught.errors import UserError
from selftaught.views.degradations.night import camera_noise, walk_kernel


def test_kernels_are_kernels_and_differ() -> None:
    kernels = np.stack([walk_kernel(seed) for seed in range(200)])
    assert kernels.shape == (200, 37, 37)
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, rtol=1e-5)
    assert kernels.min() >= 0
    assert np.array_equal(walk_kernel(3), walk_kernel(3))
    area = (kernels > 1e-4).sum((1, 2))
    assert np.unique(area).size > 50
    outside = [k for k in kernels if k[:4].sum() + k[-4:].sum() + k[:, :4].sum() + k[:, -4:].sum() > 1e-6]
    assert 0.02 < len(outside) / 200 < 0.3, "some are stretched beyond 27 pixels, most are not"
    with pytest.raises(UserError, match="odd"):
        walk_kernel(0, 36)


@pytest.mark.parametrize(
    ("level", "red", "red_variance", "green", "green_variance"),
    [(20, 27.3, 460, 22.7, 170), (80, 86.0, 1029, 82.5, 422), (160, 165.7, 1608, 162.4, 744)],
)
def test_the_camera_has_the_authors_moments(
    level: int, red: float, red_variance: float, green: float, green_variance: float
) -> None:
    flat = np.full((128, 64, 3), level / 255)
    many = np.stack([camera_noise(flat, seed, gain=8, dark=5, read=2, row=0.02) * 255 for seed in range(12)])
    assert many[..., 0].mean() == pytest.approx(red, abs=0.7)
    assert many[..., 2].mean() == pytest.approx(red, abs=0.7)
    assert many[..., 1].mean() == pytest.approx(green, abs=0.5)
    assert many[..., 0].var() == pytest.approx(red_variance, rel=0.06)
    assert many[..., 1].var() == pytest.approx(green_variance, rel=0.06)
    assert np.array_equal(many, np.rint(many))


def test_rows_have_a_gain_of_their_own() -> None:
    spread = []
    for level in (40, 160):
        made = camera_noise(np.full((400, 200, 1), level / 255), 0, gain=4, row=0.03)
        still = camera_noise(np.full((400, 200, 1), level / 255), 0, gain=4, row=0.0)
        spread.append((made.mean(1).std(), still.mean(1).std()))
    assert spread[1][0] > 2 * spread[0][0] * 0.9
    assert spread[1][0] > 2 * spread[1][1]


def test_lights_are_clipped() -> None:
    image = np.linspace(0, 1, 64).reshape(8, 8, 1)
    pipeline = views.Pipeline((views.Saturate(1.2),))
    made = views.render(image, pipeline, pipeline.sample(np.random.default_rng(0), 8, 8))
    np.testing.assert_allclose(made, np.clip(1.2 * image, 0, 1) / 1.2)
    with pytest.raises(UserError, match="1 or more"):
        views.Saturate(0.5)
    with pytest.raises(UserError, match="scale them first"):
        camera_noise(np.full((4, 4, 3), 20.0), 0)
