"""Bicubic resizing equals MATLAB's imresize, written out; gradients; the operations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import Downsample, Pipeline, RandomCrop, Recipe, Upsample, View
from tests.views.helpers import photo


def keys(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def line(values: np.ndarray, scale: float) -> np.ndarray:
    """imresize of one line of float64 values, output pixel by output pixel, counted from 1 as MATLAB does."""
    side = len(values)
    made = []
    for i in range(1, math.ceil(side * scale) + 1):
        u = i / scale + 0.5 * (1 - 1 / scale)
        width = 4 / min(scale, 1)
        left = math.floor(u - width / 2)
        total = weight = 0.0
        for j in range(left, left + math.ceil(width) + 2):
            h = min(scale, 1) * keys(min(scale, 1) * (u - j))
            mirrored = (j - 1) % (2 * side)
            mirrored = mirrored if mirrored < side else 2 * side - 1 - mirrored
            total, weight = total + h * values[mirrored], weight + h
        made.append(total / weight)
    return np.array(made)


def reference(image: np.ndarray, scale: float, rounded: bool = False) -> np.ndarray:
    image = np.apply_along_axis(line, 0, image.astype(np.float64), scale)
    image = np.clip(np.floor(image + 0.5), 0, 255) if rounded else image
    image = np.apply_along_axis(line, 1, image, scale)
    return np.clip(np.floor(image + 0.5), 0, 255) if rounded else image


@pytest.mark.parametrize("scale", [1 / 4, 1 / 2, 1 / 3, 0.7, 1.0, 1.5, 4.0])
@pytest.mark.parametrize(("height", "width"), [(24, 36), (17, 5), (3, 2)])
def test_it_is_imresize_written_out(scale: float, height: int, width: int) -> None:
    image = np.random.default_rng(0).random((height, width, 3))
    expected = reference(image, scale)
    np.testing.assert_allclose(views.bicubic(image, scale), expected, atol=1e-12)
    np.testing.assert_allclose(views.bicubic(image[:, :, 0], scale), expected[:, :, 0], atol=1e-12)
    single = views.bicubic(image.astype(np.float32), scale)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=2e-6)
    batch = views.bicubic(torch.from_numpy(image).permute(2, 0, 1)[None], scale)
    np.testing.assert_allclose(batch[0].permute(1, 2, 0), expected, atol=1e-12)
    levels = (image * 255).astype(np.uint8)
    exact = reference(levels, scale, rounded=True)
    ties = 0 if scale in (1 / 4, 1 / 2, 1.0, 4.0) else 1  # elsewhere halves hang on the last digit of a weight
    tensor = views.bicubic(torch.from_numpy(levels).permute(2, 0, 1), scale).permute(1, 2, 0).numpy()
    for made in (views.bicubic(levels, scale), tensor):
        assert made.dtype == np.uint8
        assert np.abs(made - exact).max() <= ties
        assert np.abs(made - exact).mean() < 0.06


def test_a_ramp_shrinks_to_a_ramp_and_a_constant_stays() -> None:
    ramp = np.tile(np.arange(64.0), (64, 1))
    small = views.bicubic(ramp, 1 / 4)
    np.testing.assert_allclose(small[8, 3:-3], np.arange(16)[3:-3] * 4 + 1.5, atol=1e-9)
    np.testing.assert_allclose(views.bicubic(np.full((19, 23), 0.3), 0.37), 0.3, atol=1e-12)
    assert views.bicubic(ramp, size=(10, 100)).shape == (10, 100)
    assert views.bicubic(ramp, (0.5, 2)).shape == (32, 128)
    large = np.random.default_rng(1).random((300, 7))  # several bands
    np.testing.assert_allclose(views.bicubic(large, 0.75), reference(large, 0.75), atol=1e-12)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_any_number_of_channels_is_resized_channel_by_channel(kind: type) -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 17, 13)).astype(kind)
    for scale in (0.25, (0.6, 2)):
        made = views.bicubic(image, scale)
        each = np.stack([views.bicubic(np.ascontiguousarray(image[:, :, c]), scale) for c in range(13)], 2)
        np.testing.assert_allclose(made, each, atol=1e-4)


def test_half_precision_and_gradients_pass() -> None:
    x = torch.rand(1, 2, 9, 7, dtype=torch.float64, requires_grad=True)
    for scale in (0.5, 2.0):
        assert torch.autograd.gradcheck(lambda t, s=scale: views.bicubic(t, s), x)
        assert torch.autograd.gradgradcheck(lambda t, s=scale: views.bicubic(t, s), x)
    half = views.bicubic(x.detach().half(), 0.5)
    assert half.dtype == torch.float16
    np.testing.assert_allclose(half, views.bicubic(x.detach(), 0.5), atol=2e-3)


def test_what_was_used_in_inference_mode_serves_training_too() -> None:
    x = torch.rand(1, 1, 23, 29)
    with torch.inference_mode():
        views.bicubic(x, 0.31)
    x.requires_grad_()
    views.bicubic(x, 0.31).square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_shrinking_keeps_out_what_the_small_grid_can_not_show() -> None:
    stripes = np.tile(np.array([0.0, 1.0]), (64, 32))
    np.testing.assert_allclose(views.bicubic(stripes, 0.25)[:, 3:-3], 0.5, atol=0.02)


def test_sizes_of_the_operations() -> None:
    image = photo(37, 50)
    for op, shape in (
        (Downsample(4), (10, 13, 3)),
        (Downsample(3), (13, 17, 3)),
        (Upsample(2), (74, 100, 3)),
        (Upsample(3, "nearest"), (111, 150, 3)),
    ):
        pipeline = Pipeline((op,))
        params, drawn = pipeline.sample_shape(np.random.default_rng(0), image.shape)
        assert views.render(image, pipeline, params).shape == shape == drawn
    batch = Pipeline((Downsample(4), views.CenterCrop(8)))
    corners = batch.sample_batch(np.random.default_rng(0), 2, np.array([37, 64]), np.array([50, 40]))
    np.testing.assert_array_equal(corners, [[1, 2], [4, 1]])
    nearest = views.render(image, Pipeline((Upsample(2, "nearest"),)), np.zeros(0))
    np.testing.assert_array_equal(nearest[1::2, ::2], image)


def test_low_and_high_resolution_pairs_come_from_one_crop() -> None:
    recipe = Recipe((View("high", "image", (RandomCrop(48),)), View("low", "high", (Downsample(4),))))
    image = (photo(80, 90) / 255).astype(np.float32)
    made = recipe.render({"image": image}, recipe.sample(np.random.default_rng(0), {"image": image.shape}))
    np.testing.assert_allclose(made["low"], reference(made["high"], 1 / 4), atol=2e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: views.bicubic(np.zeros((4, 4))), "either scale or size"),
        (lambda: views.bicubic(np.zeros((4, 4)), 2, size=(3, 3)), "either scale or size"),
        (lambda: views.bicubic(np.zeros((4, 4)), 0), "scale must be above 0"),
        (lambda: views.bicubic(np.zeros((4, 4)), size=(0, 3)), "size must be 1 or more"),
        (lambda: views.bicubic(np.zeros((2, 4, 4, 4)), 2), "an image is"),
        (lambda: views.bicubic(torch.zeros(4), 2), "an image is"),
        (lambda: Downsample(0.5), "scale is how many times"),
        (lambda: Upsample(2, "linear"), "method is"),
        (lambda: Upsample(1.5, "nearest"), "whole number"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()
