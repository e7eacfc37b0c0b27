import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from selftaught.errors import UserError
from selftaught.evaluation import restoration
from selftaught.evaluation.multi_output import multi_output
from selftaught.evaluation.residual_text import residual_text
from selftaught.evaluation.restoration import luma, ms_ssim, psnr, sharpness, ssim


def pictures(rng, count=4, channels=3, dtype=np.uint8):
    """Clean images of different sizes and noisy copies."""
    high = 255 if dtype == np.uint8 else 65535 if dtype == np.uint16 else 1.0
    clean, noisy = [], []
    for i in range(count):
        h, w = 24 + 3 * i, 40 - 4 * i
        image = np.linspace(0.2, 0.8, h * w * channels).reshape(h, w, channels)
        copy = image + 0.1 * rng.normal(size=image.shape)
        clean.append((high * image).astype(dtype))
        noisy.append((high * np.clip(copy, 0, 1)).astype(dtype))
    return clean, noisy, high


@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_psnr_and_ssim_by_the_formulas(rng, channels, dtype):
    clean, noisy, high = pictures(rng, channels=channels, dtype=dtype)
    result = restoration(noisy, clean, data_range=high)
    decibel, structure = [], []
    for a, b in zip(noisy, clean, strict=True):
        a, b = a.astype(np.float64), b.astype(np.float64)
        decibel.append(10 * math.log10(high**2 / np.mean((a - b) ** 2)))
        structure.append(
            structural_similarity(
                a,
                b,
                data_range=high,
                channel_axis=-1,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
        )
    assert result.figures["per_image"]["psnr"] == pytest.approx(decibel)
    assert result.figures["per_image"]["ssim"] == pytest.approx(structure)
    assert result["psnr"].mean == pytest.approx(np.mean(decibel))
    assert result["psnr"].low <= result["psnr"].mean <= result["psnr"].high


def test_ssim_literally_at_one_pixel(rng):
    """Wang's formula at the centre of an 11 x 11 image, whose only full window is the whole image."""
    a, b = rng.uniform(0, 255, (2, 11, 11))
    g = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    w = np.outer(g, g) / g.sum() ** 2
    ma, mb = (w * a).sum(), (w * b).sum()
    va, vb = (w * a * a).sum() - ma**2, (w * b * b).sum() - mb**2
    cov = (w * a * b).sum() - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    assert ssim(a, b) == pytest.approx(expected)


def test_identical_images(rng):
    clean, noisy, _ = pictures(rng)
    result = restoration([clean[0], noisy[1]], clean[:2])
    assert psnr(clean[0], clean[0]) == math.inf
    assert result.figures["per_image"]["psnr"][0] == 100.0
    assert result.figures["per_image"]["ssim"][0] == pytest.approx(1.0)
    assert "1 exact images" in result.note


def test_the_input_stands_beside_with_paired_gains(rng):
    clean, noisy, _ = pictures(rng)
    better = [((a.astype(float) + 3.0 * b) / 4).astype(np.uint8) for a, b in zip(noisy, clean, strict=True)]
    result = restoration(better, clean, noisy=noisy)
    assert result["psnr_input"] == restoration(noisy, clean)["psnr"]
    assert result["psnr_gain"].mean == pytest.approx(result["psnr"].mean - result["psnr_input"].mean)
    assert result["psnr_gain"].mean == pytest.approx(20 * math.log10(4), abs=0.6)
    assert result["psnr_gain"].low > 5
    assert result["ssim_gain"].low > 0


def test_tensors_are_channels_first_and_arrays_channels_last(rng):
    clean, noisy, _ = pictures(rng)
    first = [np.moveaxis(a, -1, 0) for a in noisy], [np.moveaxis(a, -1, 0) for a in clean]
    as_tensors = [[torch.tensor(a) for a in side] for side in first]
    assert restoration(*as_tensors) == restoration(noisy, clean)
    assert restoration(*first, channels="first") == restoration(noisy, clean)
    stacked = np.stack([clean[0]] * 3), np.stack([noisy[0]] * 3)
    assert len(restoration(*stacked).figures["per_image"]["psnr"]) == 3
    grey = [a[..., 0] for a in noisy], [a[..., 0] for a in clean]
    assert restoration(*grey)["ssim"].mean > 0
    assert restoration(*grey) == restoration([a[..., :1] for a in noisy], [a[..., :1] for a in clean])


def test_values_outside_the_range_are_clipped(rng):
    target = np.full((12, 12), 250.0)
    assert restoration([target + 50], [target])["psnr"].mean == pytest.approx(psnr(target + 5, target))
    assert restoration([target + 50], [target], clip=False)["psnr"].mean == pytest.approx(psnr(target + 50, target))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 10, 11])
def test_tiny_images_shrink_the_window(rng, side):
    a = rng.integers(0, 255, (side, side + 3, 3)).astype(np.uint8)
    result = restoration([a, 255 - a], [a, a])
    assert result.figures["per_image"]["ssim"][0] == pytest.approx(1.0)
    assert result.figures["per_image"]["ssim"][1] < 0.9
    assert ("smaller than SSIM" in result.note) == (side < 11)


def test_what_does_not_fit_is_said(rng):
    clean, noisy, _ = pictures(rng)
    with pytest.raises(UserError, match=r"predictions: 3 images for 4"):
        restoration(noisy[:3], clean)
    with pytest.raises(UserError, match=r"predictions\[0\]: size"):
        restoration(noisy[::-1], clean)
    with pytest.raises(UserError, match="pass data_range=1"):
        restoration([a / 255 for a in noisy], [a / 255 for a in clean])
    with pytest.raises(UserError, match="pass 65535"):
        restoration([a.astype(np.uint16) * 256 for a in noisy], [a.astype(np.uint16) * 256 for a in clean])
    with pytest.raises(UserError, match=r"predictions\[1\]: NaN"):
        restoration([noisy[0], np.where(True, np.nan, noisy[1])], clean[:2])
    with pytest.raises(UserError, match="looks like a single image"):
        restoration(noisy[0], clean[0])
    with pytest.raises(UserError, match="no image"):
        restoration([], [])
    with pytest.raises(UserError, match="data_range"):
        restoration(noisy, clean, data_range=0)


@pytest.mark.parametrize("high", [1.0, 255, 65535])
def test_luma_without_the_border_literally(rng, high):
    """PSNR on Y = 16 + 65.481 R + 128.553 G + 24.966 B, four pixels shaved, number by number in float64."""
    clean = rng.uniform(0, high, (20, 25, 3))
    other = np.clip(clean + 0.05 * high * rng.normal(size=clean.shape), 0, high)
    squared, count = 0.0, 0
    for i in range(4, 16):
        for j in range(4, 21):
            y = [
                16 + 65.481 * r / high + 128.553 * g / high + 24.966 * b / high
                for r, g, b in (clean[i, j], other[i, j])
            ]
            squared, count = squared + (y[0] - y[1]) ** 2, count + 1
    expected = 10 * math.log10(255**2 / (squared / count))
    result = restoration([other], [clean], data_range=high, channel="y", shave=4)
    assert result["psnr"].mean == pytest.approx(expected, rel=1e-12)
    assert "on the Y channel; without 4 pixels at the border" in result.note
    y = [(x @ [65.481, 128.553, 24.966] / 255 + 16 * high / 255)[4:-4, 4:-4] for x in (other, clean)]
    structure = structural_similarity(
        *y, data_range=high, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert result["ssim"].mean == pytest.approx(structure, rel=1e-9)


def test_luma_of_black_white_and_grey():
    assert luma(np.zeros((1, 1, 3)))[0, 0, 0] == 16
    assert luma(np.full((1, 1, 3), 255))[0, 0, 0] == pytest.approx(235)
    assert luma(np.full((1, 1, 1), 7))[0, 0, 0] == 7
    with pytest.raises(UserError, match="4 channels have no luma"):
        luma(np.zeros((2, 2, 4)))


def test_a_wrong_border_is_not_counted(rng):
    clean = rng.integers(0, 255, (30, 30, 3)).astype(np.uint8)
    other = clean.copy()
    other[:4], other[-4:], other[:, :4], other[:, -4:] = 0, 0, 0, 0
    assert restoration([other], [clean], shave=4)["psnr"].mean == 100
    assert restoration([other], [clean], shave=3)["psnr"].mean < 30
    with pytest.raises(UserError, match="shave 15: leaves nothing of an image of 30 x 30"):
        restoration([other], [clean], shave=15)
    with pytest.raises(UserError, match="channel z: it may be rgb or y"):
        restoration([other], [clean], channel="z")


def test_the_worst_image_comes_first(rng):
    clean = [rng.uniform(50, 200, (16, 16, 3)) for _ in range(3)]
    off = [image + step for image, step in zip(clean, (2.0, 9.0, 4.0), strict=True)]
    rows = restoration(off, clean, names=["a", "b", "c"]).figures["worst_first"]
    assert [row["name"] for row in rows] == ["b", "c", "a"]
    assert rows[0]["psnr"] == pytest.approx(20 * math.log10(255 / 9))
    assert rows[0]["ssim"] < rows[2]["ssim"]
    with pytest.raises(UserError, match="names: 1 for 3"):
        restoration(off, clean, names=["a"])


def test_pictures_on_another_scale_are_refused(rng):
    clean, noisy, _ = pictures(rng, count=2)
    wide = [image.astype(np.uint16) * 257 for image in noisy]
    unit = [image / 255 for image in noisy]
    for predictions, targets, data_range in (
        (unit, clean, 255),
        (wide, clean, 255),
        (noisy, [image / 255 for image in clean], 1),
        ([image.astype(float) for image in noisy], [image / 255 for image in clean], 1),
        (noisy, clean, 65535),
    ):
        with pytest.raises(UserError, match="one scale"):
            restoration(predictions, targets, data_range=data_range)
        with pytest.raises(UserError, match="one scale"):
            restoration(targets, targets, noisy=predictions, data_range=data_range)
    both = [2 * image / 255 - 1 for image in clean]
    with pytest.raises(UserError, match="cut at 0"):
        restoration(both, both, data_range=1)
    assert restoration(both, both, data_range=2, clip=False)["psnr"].mean == 100
    dark = [np.zeros(image.shape, np.float32) for image in clean]  # a picture may be black
    assert restoration(dark, clean, data_range=255)["psnr"].mean < 10
    night = np.full(clean[0].shape, 0.7)  # or all but black, where others aren't
    assert restoration([night, clean[1]], [night, clean[1].astype(float)], data_range=255)["psnr"].mean == 100


def test_channels_at_the_other_end_are_refused(rng):
    clean, noisy, _ = pictures(rng, count=1)
    first = [np.moveaxis(image, -1, 0) for image in (noisy[0], clean[0])]
    for given in (first, [torch.from_numpy(image) for image in (noisy[0], clean[0])]):
        with pytest.raises(UserError, match="channels="):
            restoration(given[:1], given[1:])
    expected = restoration(noisy, clean)["ssim"].mean
    assert restoration(first[:1], first[1:], channels="first")["ssim"].mean == pytest.approx(expected)


def test_values_that_are_no_numbers_are_refused(rng):
    clean, noisy, _ = pictures(rng, count=1)
    for kind in (object, complex):
        with pytest.raises(UserError, match="integers or floats"):
            restoration([noisy[0].astype(kind)], clean)
    with pytest.raises(UserError, match="whole number"):
        restoration(noisy, clean, shave=1.5)
    with pytest.raises(UserError, match="names"):
        restoration(noisy, clean, names="a")
    unknown = clean[0].astype(float)
    unknown[0, 0] = np.nan
    for measure in (psnr, ssim, ms_ssim, sharpness):
        with pytest.raises(UserError, match="NaN"):
            measure(unknown, clean[0])
        with pytest.raises(UserError, match="one shape"):
            measure(clean[0][..., :1], clean[0])
        with pytest.raises(UserError, match="with pixels"):
            measure(clean[0][:0], clean[0][:0])


def test_heads_and_residual_text_take_unit_floats_alone(rng):
    clean, noisy, _ = pictures(rng, count=1)
    heads, target = np.stack([noisy[0], clean[0]]) / 255, clean[0] / 255
    assert multi_output([heads], [target])["best_overall"].mean == 100
    unknown = np.where(heads > 0.7, np.nan, heads)
    for bad in ((heads * 255).astype(np.uint8), heads * 255, unknown):
        with pytest.raises(UserError, match=r"predictions\[0\]"):
            multi_output([bad], [target])
        with pytest.raises(UserError, match=r"after\[0\]"):
            residual_text([target], [bad[0]], lambda image: np.zeros((0, 4, 2)))
    with pytest.raises(UserError, match=r"targets\[0\]"):
        multi_output([heads], [clean[0]])
    with pytest.raises(UserError, match=r"before\[0\]"):
        residual_text([clean[0]], [target], lambda image: np.zeros((0, 4, 2)))
    with pytest.raises(UserError, match="size"):
        residual_text([target], [target[1:]], lambda image: np.zeros((0, 4, 2)))
    with pytest.raises(UserError, match="names"):
        multi_output([heads], [target], names=["a", "b"])
