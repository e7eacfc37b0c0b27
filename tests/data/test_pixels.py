from __future__ import annotations

import numpy as np
import pytest

from selftaught.data import as_uint8, open_source
from selftaught.data.pixels import as_hwc, channel_axis, choose_channels, conform, on_white
from selftaught.data.scaling import to_unit
from selftaught.errors import SampleError


def test_eight_bits_are_left_alone():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert as_uint8(image, [[5.0, 6.0]]) is image


def test_the_formula_literally():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 60, (7, 9, 3)).astype(np.float32)
    low, high = np.array([10.0, 50.0, 90.0]), np.array([150.0, 120.0, 91.0])
    wanted = np.floor(255 * np.clip((image.astype(np.float64) - low) / (high - low), 0, 1) + 0.5)
    got = as_uint8(image, np.stack([low, high], axis=1).tolist())
    assert got.dtype == np.uint8
    assert np.abs(got - wanted).max() <= 1
    assert (got != wanted).mean() < 0.01


def test_without_a_range_the_whole_type_is_used():
    assert as_uint8(np.array([[[0], [65535], [257]]], dtype=np.uint16)).ravel().tolist() == [0, 255, 1]
    assert as_uint8(np.array([[[0.0], [1.0], [2.0], [-1.0]]], dtype=np.float32)).ravel().tolist() == [0, 255, 255, 0]


def test_a_flat_channel_becomes_zero():
    assert not as_uint8(np.full((2, 2, 1), 7.0, np.float32), [[7.0, 7.0]]).any()


def test_a_range_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="2 channels, the image 3"):
        as_uint8(np.zeros((2, 2, 3), np.float32), [[0, 1], [0, 1]])


def test_value_range_is_one_robust_pair_per_band():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(40, 24, 24, 6)).astype(np.float32) * np.arange(1, 7) + 100
    images[3, 0, 0] = 1e9  # one hot pixel moves no percentile
    source = open_source(images, split="all")
    low, high = np.array(source.value_range).T
    assert len(low) == 6
    np.testing.assert_allclose(low, 100 - 3.09 * np.arange(1, 7), rtol=0.02)
    np.testing.assert_allclose(high, 100 + 3.09 * np.arange(1, 7), rtol=0.02)
    assert all(isinstance(v, float) for pair in source.value_range for v in pair)


def test_three_channels_share_their_range():
    images = np.random.default_rng(0).integers(0, 4000, (10, 16, 16, 3)).astype(np.uint16)
    images[..., 2] //= 4
    low, high = np.array(open_source(images, split="all").value_range).T
    assert len(set(low)) == len(set(high)) == 1
    assert 3900 < high[0] < 4000


def test_both_splits_have_the_range_of_the_whole():
    images = np.random.default_rng(0).integers(0, 9000, (30, 8, 8, 5)).astype(np.uint16)
    whole, train, test = (open_source(images, split=s) for s in ("all", "train", "test"))
    assert whole.value_range == train.value_range == test.value_range
    assert open_source(images.astype(np.uint8), split="train").value_range is None


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((64, 64, 13), 2),
        ((13, 64, 64), 0),
        ((3, 20, 30), 0),
        ((20, 30, 3), 2),
        ((8, 8, 13), 2),
        ((13, 8, 8), 0),
        ((5, 7, 5), 2),
    ],
)
def test_which_axis_holds_the_channels(shape, axis):
    assert channel_axis(shape) == axis
    assert channel_axis((5, 7, 5), pages=True) == 0


def test_axes_of_size_one_are_dropped():
    assert as_hwc(np.zeros((1, 4, 6, 1), np.uint8), "x").shape == (4, 6, 1)
    assert as_hwc(np.zeros((1, 4, 6), np.uint8), "x").shape == (4, 6, 1)


def test_grey_is_repeated_and_alpha_laid_on_white():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    np.testing.assert_array_equal(conform(grey, 3, "x"), np.repeat(grey, 3, axis=2))
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    assert conform(rgba, 3, "x").tolist() == [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]
    assert on_white(rgba.astype(np.uint16) * 257).tolist() == [[[2570, 5140, 7710], [65535] * 3, [52428] * 3]]


@pytest.mark.parametrize(
    ("have", "wanted", "said"),
    [(2, 3, "2 channels where the source has 3"), (1, 4, "1 channel where the source has 4")],
)
def test_other_channels_are_an_error(have, wanted, said):
    with pytest.raises(SampleError, match=said):
        conform(np.zeros((2, 2, have), np.uint8), wanted, "x")


def test_colour_becomes_grey_only_when_asked():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    with pytest.raises(SampleError):
        conform(image, 1, "x")
    assert conform(image, 1, "x", convert=True).ravel().tolist() == [76, 150, 29]


@pytest.mark.parametrize(
    ("counts", "chosen"),
    [
        ([3] * 9 + [1], 3),
        ([1] * 39 + [3], 1),
        ([1] * 6 + [3] * 4, 3),
        ([4] * 8, 4),
        ([4] * 60 + [3], 3),
        ([4] * 3 + [3] * 5, 3),
        ([13] * 9 + [3], 13),
        ([2, 2, 3], 2),
    ],
)
def test_the_channels_of_a_source(counts, chosen):
    assert choose_channels(counts) == chosen


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 3), (2, 7, 5, 13), (0, 5, 3)])
def test_eight_bits_are_brought_to_their_unit_as_by_division(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for seen in (image, image[::-1], image.swapaxes(0, 1)):
        found = to_unit(seen)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, (seen.astype(np.float64) / 255).astype(np.float32))
