"""One sampled set of parameters gives the same pixels from both executors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught import views
from selftaught.views import Pipeline
from tests.views.helpers import photo

EVERYTHING = (
    views.RandomResizedCrop(33),
    views.HorizontalFlip(),
    views.ColorJitter(0.8, 0.8, 0.8, 0.5, p=0.8, order="random"),
    views.Grayscale(0.2),
    views.GaussianBlur(0.5),
    views.Solarize(0.3),
)


def both(pipeline: Pipeline, images: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Views (N, h, w, C) of images (N, H, W, C), by either executor."""
    params = pipeline.sample_batch(np.random.default_rng(seed), len(images), *images.shape[1:3])
    one = np.stack([views.render(image, pipeline, row) for image, row in zip(images, params, strict=True)])
    many = views.render_batch(torch.from_numpy(images).permute(0, 3, 1, 2), pipeline, params)
    return one.astype(int), many.permute(0, 2, 3, 1).numpy().astype(int)


def stack(n: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.stack([photo(height, width, channels, which) for which in range(n)])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 51), (96, 96), (201, 131)])
def test_every_operation_in_random_order_agrees_to_the_grey_level(channels: int, height: int, width: int) -> None:
    one, many = both(Pipeline(EVERYTHING), stack(40, height, width, channels), seed=height + channels)
    difference = np.abs(one - many)
    assert difference.max() <= 2
    assert difference.mean() < 1e-3


def test_noise_and_extremes_agree_too() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (48, 45, 43, 3), dtype=np.uint8)
    images[0], images[1], images[2] = 0, 255, 128
    images[3] = np.where(rng.random((45, 43, 3)) < 0.5, 0, 255)
    one, many = both(Pipeline(EVERYTHING), images)
    assert np.abs(one - many).max() <= 2
    assert np.abs(one - many).mean() < 1e-3


@pytest.mark.parametrize("preset", ["simclr", "dcl", "barlow_twins", "small", "multi_crop"])
def test_presets_agree(preset: str) -> None:
    images = stack(16, 70, 83, 3)
    for pipeline in {pipeline.ops: pipeline for pipeline in getattr(views, preset)(48)}.values():
        one, many = both(pipeline, images)
        assert np.abs(one - many).max() <= 2
        assert np.abs(one - many).mean() < 0.01


@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("size", [(16, 16), (40, 31), (97, 61), (200, 170)])
def test_resize_of_the_whole_image_is_the_same_at_any_reduction(channels: int, size: tuple[int, int]) -> None:
    one, many = both(Pipeline((views.Resize(size),)), stack(3, 187, 143, channels))
    assert np.abs(one - many).max() <= 1
    assert np.abs(one - many).mean() < 1e-3


def test_shorter_side_then_middle() -> None:
    one, many = both(views.plain(28, resize=32)[0], stack(3, 90, 61, 3))
    assert one.shape == (3, 28, 28, 3)
    assert np.abs(one - many).max() <= 1


@pytest.mark.parametrize("code", range(8))
def test_dihedral_codes_mean_the_same_turn(code: int) -> None:
    pipeline = Pipeline((views.Dihedral(),))
    image = photo(24, 24)
    params = np.array([[float(code)]])
    many = views.render_batch(torch.from_numpy(image).permute(2, 0, 1)[None], pipeline, params)[0]
    turned = np.rot90(image, code % 4)
    expected = turned[:, ::-1] if code >= 4 else turned
    np.testing.assert_array_equal(views.render(image, pipeline, params[0]), expected)
    np.testing.assert_array_equal(many.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint8])
def test_patches_pass_any_dtype_untouched(dtype: type) -> None:
    rng = np.random.default_rng(1)
    images = (rng.random((16, 50, 40, 2)) * 60000).astype(dtype)
    pipeline = views.patches(21)[0]
    params = pipeline.sample_batch(rng, 16, 50, 40)
    many = views.render_batch(torch.from_numpy(images).permute(0, 3, 1, 2), pipeline, params)
    for image, row, view in zip(images, params, many, strict=True):
        patch = views.render(image, pipeline, row)
        assert patch.dtype == dtype
        np.testing.assert_array_equal(patch, view.permute(1, 2, 0).numpy())
        assert np.isin(patch, image).all()


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0, 7.0])
@pytest.mark.parametrize("side", [1, 2, 5, 40])
def test_blur_mirrors_alike_even_when_wider_than_the_image(sigma: float, side: int) -> None:
    one, many = both(Pipeline((views.GaussianBlur(1.0, (sigma, sigma)),)), stack(2, side, side + 3, 3))
    assert np.abs(one - many).max() <= 1


def test_device_leaves_its_input_alone_and_is_repeatable() -> None:
    images = torch.from_numpy(stack(12, 40, 40, 3)).permute(0, 3, 1, 2)
    before = images.clone()
    pipeline = Pipeline(EVERYTHING)
    params = pipeline.sample_batch(np.random.default_rng(2), 12, 40, 40)
    first, second = (views.render_batch(images, pipeline, params) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(images, before)
    assert first.is_contiguous()
    assert first.dtype == torch.uint8


def test_channels_last_batches_and_tensor_parameters_give_the_same() -> None:
    images = torch.from_numpy(stack(8, 40, 40, 3)).permute(0, 3, 1, 2)
    pipeline = Pipeline(EVERYTHING)
    params = pipeline.sample_batch(np.random.default_rng(3), 8, 40, 40)
    plain = views.render_batch(images.contiguous(), pipeline, params)
    assert torch.equal(plain, views.render_batch(images, pipeline, torch.from_numpy(params)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_pixels_of_the_cpu() -> None:
    images = torch.from_numpy(stack(32, 64, 64, 3)).permute(0, 3, 1, 2)
    pipeline = Pipeline(EVERYTHING)
    params = pipeline.sample_batch(np.random.default_rng(4), 32, 64, 64)
    here = views.render_batch(images, pipeline, params)
    there = views.render_batch(images.cuda(), pipeline, params).cpu()
    assert (here.int() - there.int()).abs().max() <= 1
