"""Turns, shifts and changes of size: against what NumPy does exactly, on images that aren't square, and masks."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import Pipeline, RandomAffine, cpu  # noqa: F401  (declares its executors)

PIPELINE = Pipeline((RandomAffine(),))


def moved(x: np.ndarray, *values: float, kind: str = "image") -> np.ndarray:
    return views.render(x, PIPELINE, np.array(values), kind=kind)


def test_quarter_turns_shifts_and_growth_are_numpys() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(moved(x, 0, 0, 0, 1), x)
    np.testing.assert_array_equal(moved(x, 90, 0, 0, 1), np.rot90(x))
    np.testing.assert_array_equal(moved(x, -90, 0, 0, 1), np.rot90(x, -1))
    wide = rng.integers(0, 256, (8, 20, 1), dtype=np.uint8)
    right = moved(wide, 0, 0.1, 0, 1)  # a tenth of 20 columns
    np.testing.assert_array_equal(right[:, 2:], wide[:, :-2])
    np.testing.assert_array_equal(right[:, :2], np.repeat(wide[:, :1], 2, axis=1))  # goes on as its border
    np.testing.assert_array_equal(moved(wide, 0, 0, 0.25, 1)[2:], wide[:-2])
    twice = np.repeat(np.repeat(wide[2:6, 5:15], 2, 0), 2, 1)
    np.testing.assert_array_equal(moved(wide[..., 0].astype(np.int64), 0, 0, 0, 2, kind="mask"), twice[..., 0])
    ramp = np.tile(np.arange(20.0), (8, 1))[..., None]
    np.testing.assert_allclose(moved(ramp, 0, 0, 0, 2)[3, 4:16, 0], np.arange(4, 16) / 2 + 4.75)


def test_draws_fill_their_ranges() -> None:
    op = RandomAffine(degrees=20, translate=0.2, scale=(0.5, 2.0))
    rows = np.array([Pipeline((op,)).sample(np.random.default_rng(k), 9, 9) for k in range(300)])
    for column, (low, high) in zip(rows.T, ((-20, 20), (-0.2, 0.2), (-0.2, 0.2), (0.5, 2)), strict=True):
        assert low <= column.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < column.max() <= high
    for wrong in ({"degrees": 181}, {"translate": -0.1}, {"scale": (0, 1)}, {"scale": (2, 1)}):
        with pytest.raises(UserError, match="RandomAffine"):
            RandomAffine(**wrong)
