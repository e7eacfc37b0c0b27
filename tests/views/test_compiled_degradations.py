"""Compiled degradations against the same in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from selftaught.views import CorrelatedNoise, GaussianNoise, Pipeline, _fast, bicubic, render
from selftaught.views.degradations import _normals, noise, resampling

pytest.importorskip("numba")


def both(monkeypatch: pytest.MonkeyPatch, module: ModuleType, work: Callable[[], np.ndarray]) -> list[np.ndarray]:
    """What it gives in NumPy, and compiled; and that the two are two."""
    used: list[str] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            used.append(name)
            return getattr(_fast.kernels(), name)

    monkeypatch.setattr(module, "kernels", lambda: None)
    plain = work()
    assert not used
    monkeypatch.setattr(module, "kernels", Watched)
    fast = work()
    assert used
    return [plain, fast]


@pytest.mark.parametrize(("scale", "channels"), [(0.25, 3), (1 / 3, 1), (0.7, 4), (0.5, 0), (2.0, 3)])
def test_resizing(scale: float, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (57, 70, *([channels] if channels else [])), dtype=np.uint8)
    image[:9], image[9:18] = 0, 255  # the kernel's lobes leave the range
    plain, fast = both(monkeypatch, resampling, lambda: np.asarray(bicubic(image, scale)))
    assert plain.shape == fast.shape
    apart = np.abs(plain.astype(int) - fast)
    assert apart.max() <= (0 if scale in (0.25, 0.5, 2.0) else 1)  # exact where the weights are
    assert (apart > 0).mean() < 1e-3


@pytest.mark.parametrize("scales", [(0.5, 0.25), (0.25, 0.5), (1.0, 0.25), (0.25, 1.0), (2.0, 0.25)])
def test_axes_of_their_own_scale(scales: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The axis that shrinks more goes first; what is seen mirrored and as every second row is the same to both."""
    image = np.random.default_rng(1).integers(0, 256, (130, 61, 3), dtype=np.uint8)[::-2, ::-1]
    image[:9], image[9:18] = 0, 255
    plain, fast = both(monkeypatch, resampling, lambda: np.asarray(bicubic(image, scales)))
    np.testing.assert_array_equal(plain, fast)


def test_normal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, count in ((0.0, 40_000), (2.0**53 - 1, 7), (123456789012345.0, 1)):
        plain, fast = both(monkeypatch, _normals, lambda: _normals.normals(seed, (count, 1)))  # noqa: B023
        np.testing.assert_allclose(fast, plain, atol=3e-6)
    assert np.ptp(plain) == 0
    assert abs(_normals.normals(5.0, (40_000,)).std() - 1) < 0.01


def test_noise_is_rounded_and_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.tile(np.array([0, 1, 127, 254, 255], np.uint8), (40, 8, 1)).reshape(40, 40, 1)
    pipeline = Pipeline((GaussianNoise(60.0),))
    params = pipeline.sample(np.random.default_rng(3), 40, 40)
    plain, fast = both(monkeypatch, noise, lambda: render(image, pipeline, params))
    assert (plain == fast).mean() > 0.999
    assert {0, 255} <= set(fast.ravel().tolist())
    assert np.abs(plain.astype(int) - fast).max() <= 1


def test_noise_that_neighbours_share(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((40, 41, 3), 128, np.uint8)
    pipeline = Pipeline((CorrelatedNoise(30.0),))
    params = pipeline.sample(np.random.default_rng(3), 40, 41)
    plain, fast = both(monkeypatch, noise, lambda: render(image, pipeline, params))
    assert (plain == fast).mean() > 0.999
    assert np.abs(plain.astype(int) - fast).max() <= 1
    rows = fast[:-1].astype(float) - 128, fast[1:].astype(float) - 128
    assert np.corrcoef(rows[0].ravel(), rows[1].ravel())[0, 1] == pytest.approx(2 / 3, abs=0.08)


@pytest.mark.parametrize("cut", [np.s_[3:9, 5:3000], np.s_[::-1, 7:71], np.s_[2:50:3, 1:], np.s_[:1, :65], np.s_[:9]])
def test_a_window_is_copied_whatever_lies_around_it(cut: Any) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (51, 3001), dtype=np.uint8)
    out = np.zeros_like(np.ascontiguousarray(whole[cut]))
    _fast.kernels("_windows").copied(whole[cut], out)
    np.testing.assert_array_equal(out, whole[cut])
