"""The CPU executor: identities, symmetries, any number of channels, writing in place, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import Pipeline
from tests.views.helpers import photo

RNG = np.random.default_rng


def test_neutral_parameters_give_the_same_pixels() -> None:
    pipeline = Pipeline(
        (
            views.RandomResizedCrop((60, 50)),
            views.HorizontalFlip(),
            views.ColorJitter(0.4, 0.4, 0.4, 0.1),
            views.Grayscale(),
            views.GaussianBlur(),
            views.Solarize(),
        )
    )
    nothing = np.array([0, 0, 60, 50, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0.1, 0], np.float64)
    for channels in (1, 3, 5):
        image = photo(60, 50, channels)
        view = views.render(image, pipeline, nothing)
        np.testing.assert_array_equal(view, image)
        assert not np.shares_memory(view, image)
        batch = views.render_batch(torch.from_numpy(image).permute(2, 0, 1)[None], pipeline, nothing[None])
        np.testing.assert_array_equal(batch[0].permute(1, 2, 0), image)


def test_an_empty_pipeline_copies() -> None:
    image = photo(10, 12)
    view = views.render(image, Pipeline(()), Pipeline(()).sample(RNG(0), 10, 12))
    np.testing.assert_array_equal(view, image)
    view[:] = 0
    assert image.any()


def test_flipping_twice_is_nothing_and_once_mirrors() -> None:
    image = photo(31, 44, 4)
    once, twice = (Pipeline((views.HorizontalFlip(1.0),) * times) for times in (1, 2))
    np.testing.assert_array_equal(views.render(image, once, np.ones(1)), image[:, ::-1])
    np.testing.assert_array_equal(views.render(image, twice, np.ones(2)), image)


def test_solarizing_at_zero_twice_is_nothing() -> None:
    image = photo(20, 20)
    twice = Pipeline((views.Solarize(1.0, 0), views.Solarize(1.0, 0)))
    np.testing.assert_array_equal(views.render(image, twice, np.ones(2)), image)


def test_a_constant_image_stays_constant_under_crop_blur_and_saturation() -> None:
    pipeline = Pipeline(
        (views.RandomResizedCrop(37), views.ColorJitter(0, 0, 0.9, 0.2, p=1.0), views.GaussianBlur(1.0))
    )
    image = np.full((53, 61, 3), 117, np.uint8)
    for seed in range(20):
        view = views.render(image, pipeline, pipeline.sample(RNG(seed), 53, 61))
        assert np.abs(view.astype(int) - 117).max() <= 1


def test_brightness_scales_contrast_keeps_the_mean_and_grey_is_grey() -> None:
    image = photo(64, 64) // 2 + 40
    for values, check in (
        ([1, 0.5, 1, 1, 0, 0], lambda v: abs(v.mean() / image.mean() - 0.5) < 0.01),
        ([1, 1, 0.3, 1, 0, 0], lambda v: abs(np.ptp(v) / np.ptp(image) - 0.3) < 0.03),
        ([1, 1, 1, 0.0, 0, 0], lambda v: np.ptp(v, axis=2).max() <= 1),
    ):
        view = views.render(image, Pipeline((views.ColorJitter(),)), np.array(values, np.float64))
        assert check(view.astype(float)), values
    grey = views.render(image, Pipeline((views.Grayscale(1.0),)), np.ones(1))
    assert np.ptp(grey, axis=2).max() == 0
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[..., 0] - luma).max() <= 0.51


def test_a_third_of_a_turn_of_hue_exchanges_the_primaries() -> None:
    image = np.array([[[200, 0, 0], [0, 200, 0], [0, 0, 200]]], np.uint8)
    view = views.render(image, Pipeline((views.ColorJitter(),)), np.array([1, 1, 1, 1, 1 / 3, 0.0]))
    expected = np.array([[[0, 200, 0], [0, 0, 200], [200, 0, 0]]])
    assert np.abs(view.astype(int) - expected).max() <= 1


def test_saturation_of_many_channels_goes_towards_their_mean() -> None:
    image = photo(20, 20, 13)
    view = views.render(image, Pipeline((views.ColorJitter(),)), np.array([1, 1, 1, 0.25, 0.3, 0]))
    mean = image.mean(axis=2, keepdims=True)
    assert np.abs(view - (0.25 * image + 0.75 * mean)).max() <= 1
    grey = views.render(image, Pipeline((views.Grayscale(1.0),)), np.ones(1))
    assert np.abs(grey - mean).max() <= 0.51


def test_one_channel_ignores_colour_but_not_brightness() -> None:
    image = photo(20, 20, 1)
    pipeline = Pipeline((views.ColorJitter(), views.Grayscale()))
    np.testing.assert_array_equal(views.render(image, pipeline, np.array([1, 1, 1, 0.1, 0.4, 0, 1])), image)
    darker = views.render(image, pipeline, np.array([1, 0.5, 1, 0.1, 0.4, 0, 1]))
    assert abs(darker.mean() / image.mean() - 0.5) < 0.01


@pytest.mark.parametrize("channels", [1, 2, 13, 129, 200])
def test_any_number_of_channels_goes_through(channels: int) -> None:
    image = photo(40, 30, channels)
    pipeline = views.simclr(16)[0]
    for seed in range(8):
        view = views.render(image, pipeline, pipeline.sample(RNG(seed), 40, 30))
        assert view.shape == (16, 16, channels)
    params = np.array([0, 0, 40, 30, 0, 1, 0, 1, 1, 1, 0, 0, 0, 1, 1.0])
    whole = views.render(image, pipeline, params)
    for channel in (0, channels - 1):
        alone = views.render(np.ascontiguousarray(image[..., channel]), pipeline, params)
        np.testing.assert_array_equal(whole[..., channel], alone[..., 0])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_writing_into_a_batch_gives_the_same_in_either_layout(channels: int) -> None:
    pipeline = views.simclr(24)[0]
    first = np.zeros((3, channels, 24, 24), np.uint8)
    last = np.zeros((3, 24, 24, channels), np.uint8)
    for i in range(3):
        image = photo(50, 41, channels, i)
        params = pipeline.sample(RNG(i), 50, 41)
        views.render_into(first[i], image, pipeline, params)
        views.render_into(last[i], image, pipeline, params, channels_first=False)
        np.testing.assert_array_equal(last[i], views.render(image, pipeline, params))
    np.testing.assert_array_equal(first, last.transpose(0, 3, 1, 2))
    strided = np.zeros((channels, 24, 48), np.uint8)[:, :, ::2]
    views.render_into(strided, image, pipeline, params)
    np.testing.assert_array_equal(strided, first[2])


def test_the_image_is_never_written_to() -> None:
    image = photo(40, 40)
    image.setflags(write=False)
    before = image.copy()
    for pipeline in (*views.simclr(40), *views.barlow_twins(40)):
        for seed in range(10):
            views.render(image, pipeline, pipeline.sample(RNG(seed), 40, 40))
    np.testing.assert_array_equal(image, before)


def test_non_contiguous_images_are_fine() -> None:
    image = photo(60, 60)
    pipeline = views.simclr(32)[0]
    params = pipeline.sample(RNG(1), 30, 60)
    strided = image[::2]
    np.testing.assert_array_equal(
        views.render(strided, pipeline, params), views.render(strided.copy(), pipeline, params)
    )
    mirrored = image[:, ::-1]
    params = pipeline.sample(RNG(1), 60, 60)
    np.testing.assert_array_equal(
        views.render(mirrored, pipeline, params), views.render(mirrored.copy(), pipeline, params)
    )


def test_errors_name_the_mend() -> None:
    pipeline = views.simclr(32)[0]
    params = pipeline.sample(RNG(0), 60, 60)
    params[:5] = [10, 10, 40, 40, 0]
    with pytest.raises(UserError, match="as_uint8"):
        views.render(photo(60, 60).astype(np.float32), pipeline, params)
    with pytest.raises(UserError, match="leaves the 30x30 image"):
        views.render(photo(30, 30), pipeline, params)
    with pytest.raises(UserError, match="parameters have shape"):
        views.render(photo(60, 60), pipeline, params[:-1])
    with pytest.raises(UserError, match="height, width, channels"):
        views.render(np.zeros((2, 3, 4, 5), np.uint8), pipeline, params)
    with pytest.raises(UserError, match="the view is"):
        views.render_into(np.zeros((3, 31, 32), np.uint8), photo(60, 60), pipeline, params)
    images = torch.zeros(2, 3, 30, 30, dtype=torch.uint8)
    with pytest.raises(UserError, match="sample 0 leaves"):
        views.render_batch(images, pipeline, np.stack([params, params]))
    with pytest.raises(UserError, match="uint8"):
        views.render_batch(images.float(), pipeline, np.stack([params, params]))
    with pytest.raises(UserError, match=r"\(N, C, H, W\)"):
        views.render_batch(images[0], pipeline, params[None])
    with pytest.raises(UserError, match="parameters have shape"):
        views.render_batch(images, pipeline, params[None])


@pytest.mark.parametrize("side", [24, 90, 500])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_turned_windows_stay_what_they_are(side: int, channels: int) -> None:
    """Every window has its own memory, though all are turned by way of the same place."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (9, side + 7, side + 11, channels), dtype=np.uint8)
    codes = [*range(8), 5]
    turned = [
        views.render(p, Pipeline((views.RandomCrop(side), views.Dihedral())), np.array([3.0, 5.0, k]))
        for p, k in zip(pictures, codes, strict=True)
    ]
    mirrored = [
        views.render(p, Pipeline((views.RandomCrop(side), views.HorizontalFlip())), np.array([3.0, 5.0, 1.0]))
        for p in pictures
    ]
    for picture, code, one, other in zip(pictures, codes, turned, mirrored, strict=True):
        window = picture[3 : 3 + side, 5 : 5 + side]
        quarters = np.rot90(window, code % 4)
        assert np.array_equal(one, quarters[:, ::-1] if code >= 4 else quarters)
        assert np.array_equal(other, window[:, ::-1])
