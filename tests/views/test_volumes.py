"""ResizeVolume: what it keeps, what it refuses, and that no voxel of a longer axis is passed over."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.views import Pipeline, ResizeVolume, cpu


def _resized(volume: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    pipeline = Pipeline((ResizeVolume(size),))
    params, shape = pipeline.sample_shape(np.random.default_rng(0), volume.shape, "volume")
    made = cpu.render(volume, pipeline, params, kind="volume")
    assert made.shape == shape
    return made


def test_constants_ramps_and_the_own_size_are_kept() -> None:
    flat = np.full((5, 6, 7, 2), 93, np.uint8)
    assert (_resized(flat, (3, 9, 4)) == 93).all()
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 2), dtype=np.uint8)
    assert np.array_equal(_resized(noise, (5, 6, 7)), noise)
    ramp = np.broadcast_to(np.arange(16.0, dtype=np.float32)[:, None, None, None], (16, 4, 4, 1)).copy()
    inner = _resized(ramp, (8, 4, 4))[1:-1, 0, 0, 0]
    np.testing.assert_allclose(inner, 2 * np.arange(1, 7) + 0.5, atol=1e-5)
    np.testing.assert_allclose(_resized(ramp, (32, 4, 4))[1:-1, 0, 0, 0], (np.arange(1, 31) + 0.5) / 2 - 0.5, atol=1e-5)


def test_every_voxel_of_a_shortened_axis_counts() -> None:
    for place in range(20):
        thin = np.zeros((20, 3, 3, 1), np.float32)
        thin[place] = 1
        assert _resized(thin, (4, 3, 3)).sum() > 0.5


def test_other_sizes_and_kinds_are_refused() -> None:
    for size in (8, (4, 4), (4, 0, 4), (4, 4.5, 4)):
        with pytest.raises(UserError, match="ResizeVolume: size is"):
            ResizeVolume(size)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="takes volumes, not clip"):
        Pipeline((ResizeVolume((2, 2, 2)),)).sample_shape(np.random.default_rng(0), (4, 4, 4, 1), "clip")
    assert ResizeVolume((4, 8, 6)).coarser(2) == ResizeVolume((2, 4, 3))
    with pytest.raises(UserError, match="no multiple"):
        ResizeVolume((4, 8, 5)).coarser(2)
