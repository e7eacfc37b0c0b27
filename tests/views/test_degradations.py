"""Noise, blur and compression as operations: moments, kernels, facts, determinism, float images."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import signal, stats

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import JPEG, Blur, CorrelatedNoise, GaussianNoise, MotionBlur, Op, Pipeline, Recipe, View
from selftaught.views.degradations import compression
from selftaught.views.degradations._normals import normals, normals_batch
from tests.views.helpers import photo

FLAT = np.full((128, 128, 3), 0.5, np.float32)


def applied(op: Op, image: np.ndarray, seed: int = 0, kind: str = "image") -> tuple[np.ndarray, dict]:
    pipeline = Pipeline((op,))
    facts: dict = {}
    params, _ = pipeline.sample_shape(np.random.default_rng(seed), image.shape, kind)
    return views.render(image, pipeline, params, kind=kind, facts=facts), facts


def test_normal_numbers_are_normal_independent_and_alike_in_torch() -> None:
    drawn = normals(123456789.0 * 2**20 + 7, (300, 200)).ravel().astype(np.float64)
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    assert abs(stats.kurtosis(drawn)) < 0.05
    for lag in (1, 2, 200, 30000):
        assert abs(np.corrcoef(drawn[lag:], drawn[:-lag])[0, 1]) < 0.015
    other = normals(123456789.0 * 2**20 + 8, (300, 200)).ravel()
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.015
    seeds = np.array([0.0, 5.0, 2.0**53 - 1, 123456789.0])
    together = normals_batch(seeds, (7, 9), torch.zeros(1)).numpy()
    np.testing.assert_allclose(together, [normals(seed, (7, 9)) for seed in seeds], atol=2e-6)
    assert normals(3, (5,)).shape == (5,)


def test_white_noise_has_the_sigma_that_it_tells() -> None:
    noisy, facts = applied(GaussianNoise((0.05, 0.2)), FLAT)
    residual = noisy.astype(np.float64) - 0.5
    assert 0.05 <= facts["sigma"] <= 0.2
    assert abs(residual.std() / facts["sigma"] - 1) < 0.02
    assert abs(np.corrcoef(residual[:, 1:].ravel(), residual[:, :-1].ravel())[0, 1]) < 0.02
    np.testing.assert_array_equal(applied(GaussianNoise((0.05, 0.2)), FLAT)[0], noisy)
    assert not np.array_equal(applied(GaussianNoise((0.05, 0.2)), FLAT, seed=1)[0], noisy)
    clip, _ = applied(GaussianNoise(0.1), np.stack([FLAT] * 3), kind="clip")
    assert abs(np.corrcoef(clip[0].ravel(), clip[1].ravel())[0, 1]) < 0.02
    levels, _ = applied(GaussianNoise(25), np.full((64, 64, 1), 250, np.uint8))
    assert levels.max() == 255
    assert levels.min() > 100


@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_correlated_noise_has_unit_variance_and_a_triangular_correlation(kernel: int) -> None:
    residual = np.concatenate([applied(CorrelatedNoise(0.1, kernel), FLAT, seed)[0] - 0.5 for seed in range(4)])
    assert abs(residual.std() - 0.1) < 0.003
    for lag in (1, 2, 3):
        found = np.corrcoef(residual[:, lag:].ravel(), residual[:, :-lag].ravel())[0, 1]
        assert abs(found - max(0, 1 - lag / kernel)) < 0.04


def test_blur_is_a_convolution_with_the_kernel_that_it_tells() -> None:
    image = (photo(30, 41) / 255).astype(np.float64)
    kernel = np.random.default_rng(0).random((3, 5))
    for border, mode in (("mirror", "reflect"), ("repeat", "edge"), ("wrap", "wrap")):
        made, facts = applied(Blur(kernel, border), image)
        wide = np.pad(image, ((1, 1), (2, 2), (0, 0)), mode=mode)
        for channel in range(3):
            expected = signal.convolve2d(wide[:, :, channel], kernel, mode="valid")
            np.testing.assert_allclose(made[:, :, channel], expected, atol=1e-6)
        np.testing.assert_allclose(facts["kernel"], kernel, rtol=1e-6)
    np.testing.assert_array_equal(applied(Blur([[0, 0, 0], [0, 1, 0], [0, 0, 0]]), photo(20, 20))[0], photo(20, 20))
    shifted, _ = applied(Blur([[0, 0, 1]], "wrap"), image)  # q = (0, 1): y[p] = x[p - (0, 1)]
    np.testing.assert_allclose(shifted, np.roll(image, 1, axis=1))


@pytest.mark.parametrize("kernel", ["sharpening", "small", "path", "dense", "far from the middle"])
def test_blurred_bytes_are_rounded_and_clipped(kernel: str) -> None:
    rng = np.random.default_rng(0)
    far = np.zeros((9, 31))
    far[1, 29] = 1.5
    weights = {
        "sharpening": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]), "small": rng.random((5, 3)) / 7,
        "path": views.motion_kernel(31, 28.0, 1), "dense": rng.random((13, 13)) / 85, "far from the middle": far,
    }[kernel]  # fmt: skip
    image = photo(40, 37)
    made, _ = applied(Blur(weights), image)
    down, right = weights.shape[0] // 2, weights.shape[1] // 2
    wide = np.pad(image.astype(np.float64), ((down, down), (right, right), (0, 0)), mode="reflect")
    exact = np.stack([signal.convolve2d(wide[:, :, c], weights, mode="valid") for c in range(3)], 2)
    assert made.dtype == np.uint8
    assert np.abs(made - np.clip(exact, 0, 255)).max() < 0.501


def test_motion_kernels_are_paths_of_the_given_length() -> None:
    for seed in range(20):
        kernel = views.motion_kernel(21, 12.0, seed)
        assert kernel.dtype == np.float32
        assert abs(kernel.sum() - 1) < 1e-5
        assert kernel.min() >= 0
        rows, columns = np.mgrid[:21, :21] - 10
        assert abs((kernel * rows).sum()) < 0.01
        assert abs((kernel * columns).sum()) < 0.01
        reach = np.hypot(rows, columns)[kernel > 0].max()
        assert reach <= 12 / 2 + 1.5
    straight = [views.motion_kernel(21, 20.0, seed, roughness=0) for seed in range(30)]
    rows, columns = np.mgrid[:21, :21] - 10
    for kernel in straight:  # the second moment of a segment of length L is L^2 / 12 along it, and nothing across
        moments = np.array([[(kernel * a * b).sum() for a in (rows, columns)] for b in (rows, columns)])
        small, large = np.linalg.eigvalsh(moments)
        assert abs(large - 20**2 / 12) < 1
        assert small < 0.3
    np.testing.assert_array_equal(views.motion_kernel(9, 0.0, 1), np.pad([[1]], 4))
    rough = [views.motion_kernel(21, 20.0, seed, roughness=1) for seed in range(30)]
    assert np.mean([(k > 0).sum() for k in rough]) != np.mean([(k > 0).sum() for k in straight])


def test_a_drawn_kernel_is_told_and_is_what_was_done() -> None:
    image = (photo(40, 40) / 255).astype(np.float32)
    recipe = Recipe((View("sharp", "image"), View("blurry", "sharp", (MotionBlur(11), GaussianNoise(0.0)))))
    made = recipe.render({"image": image}, recipe.sample(np.random.default_rng(2), {"image": image.shape}))
    assert made.keys() == {"sharp", "blurry", "blurry.kernel", "blurry.sigma"}
    again, _ = applied(Blur(made["blurry.kernel"]), image)
    np.testing.assert_allclose(made["blurry"], again, atol=1e-6)


def test_jpeg_is_what_the_codec_makes_of_that_quality() -> None:
    image = photo(48, 56)
    made, facts = applied(JPEG((40, 60)), image)
    quality = int(facts["quality"])
    assert 40 <= quality <= 60
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    assert np.abs(made.astype(int) - np.asarray(Image.open(file))).max() <= 3
    floats, _ = applied(JPEG((40, 60)), (image / 255).astype(np.float32))
    np.testing.assert_allclose(floats * 255, made, atol=1e-3)
    worse, better = (np.abs(applied(JPEG(q), image)[0].astype(int) - image).mean() for q in (10, 90))
    assert worse > better
    assert applied(JPEG(50), photo(20, 20, 1))[0].shape == (20, 20, 1)


@pytest.mark.parametrize("quality", [1, 10, 33, 50, 75, 92, 100])
def test_the_compiled_jpeg_is_the_codec_s_to_the_bit(quality: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smooth, noisy and two-valued pictures, grey and in colour, of sides that fill no block."""
    pytest.importorskip("numba")
    rng = np.random.default_rng(quality)
    sides = [(1, 1), (1, 40), (3, 2), (8, 16), (5, 17), (16, 16), (37, 33), (50, 64), (64, 49)]
    pictures = []
    for number, (height, width) in enumerate(sides):
        for channels in (1, 3):
            x = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
            smooth = photo(64, 64, channels)[:height, :width]
            pictures.append((x, np.where(x > 127, 255, 0).astype(np.uint8), np.ascontiguousarray(smooth))[number % 3])
    ours = [applied(JPEG(quality), x)[0] for x in pictures]
    monkeypatch.setattr(compression, "kernels", lambda: None)
    for x, made in zip(pictures, ours, strict=True):
        np.testing.assert_array_equal(made, applied(JPEG(quality), x)[0], err_msg=str(x.shape))


def test_the_blur_of_views_takes_floats_too() -> None:
    image = (photo(40, 40) / 255).astype(np.float32)
    pipeline = Pipeline((views.GaussianBlur(1.0),))
    params = pipeline.sample(np.random.default_rng(0), 40, 40)
    levels = views.render(photo(40, 40), pipeline, params)
    assert np.abs(views.render(image, pipeline, params) * 255 - levels).max() < 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GaussianNoise(-1), "sigma"),
        (lambda: GaussianNoise((2, 1)), "sigma"),
        (lambda: CorrelatedNoise(1, 0), "kernel is a whole number"),
        (lambda: Blur(np.ones((2, 3))), "odd sides"),
        (lambda: Blur([[np.nan]]), "finite"),
        (lambda: Blur([[1]], "zero"), "border is one of"),
        (lambda: Blur("box"), "table of finite numbers"),
        (lambda: MotionBlur(4), "odd number"),
        (lambda: MotionBlur(5, 9), "length"),
        (lambda: MotionBlur(5, roughness=2), "roughness"),
        (lambda: views.motion_kernel(5, 5, 0), "a path of 5 pixels"),
        (lambda: JPEG(0), "quality"),
        (lambda: JPEG((90, 20)), "quality"),
        (lambda: applied(JPEG(50), photo(20, 20, 2)), "1 or 3 channels"),
        (lambda: applied(JPEG(50), FLAT * 4), r"lie in \[0, 1\], got 2 to 2"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_degradations_are_read_from_plain_values() -> None:
    pipeline = Pipeline((views.Downsample(2), GaussianNoise((1, 2)), JPEG(), Blur([[0.5, 0.25, 0.25]]), MotionBlur(7)))
    assert Pipeline.from_dict(pipeline.to_dict()) == pipeline
    assert hash(Pipeline.from_dict(pipeline.to_dict())) == hash(pipeline)
