"""The recipes, and the three-line use."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import ColorJitter, GaussianBlur, Grayscale, RandomResizedCrop, Solarize
from tests.views.helpers import photo


def op(pipeline: views.Pipeline, kind: type):
    return next((one for one in pipeline.ops if isinstance(one, kind)), None)


def test_simclr_recipe() -> None:
    first, second = views.simclr(96)
    assert first.ops == second.ops
    assert op(first, ColorJitter) == ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8)
    assert op(first, Grayscale).p == 0.2
    assert op(first, GaussianBlur) == GaussianBlur(0.5, (0.1, 2.0))
    assert op(first, RandomResizedCrop).scale == (0.08, 1.0)
    assert op(views.simclr(32, strength=0.5, blur=0)[0], ColorJitter).hue == (-0.1, 0.1)
    assert op(views.simclr(32, blur=0)[0], GaussianBlur) is None


def test_dcl_recipe() -> None:
    at_cifar, at_imagenet = views.dcl(32)[0], views.dcl(224)[1]
    assert op(at_cifar, ColorJitter) == ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8)
    assert op(at_cifar, RandomResizedCrop).scale == (0.2, 1.0)
    assert op(at_cifar, GaussianBlur) is None
    assert op(at_imagenet, GaussianBlur).p == 0.5


def test_colour_steps_come_in_a_random_order_as_in_the_papers() -> None:
    for make in (views.simclr, views.dcl, views.barlow_twins, views.small, views.multi_crop):
        assert op(make(96)[0], ColorJitter).order == "random"
    pipeline = views.simclr(96)[0]
    column = pipeline.columns.index("2.ColorJitter.order")
    drawn = pipeline.sample_batch(np.random.default_rng(0), 2400, 96, 96)[:, column]
    counts = np.bincount(drawn.astype(int), minlength=24)
    assert counts.min() > 60


def test_barlow_twins_recipe_has_two_unequal_views() -> None:
    first, second = views.barlow_twins(224)
    assert op(first, ColorJitter) == ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8) == op(second, ColorJitter)
    assert (op(first, GaussianBlur).p, op(second, GaussianBlur).p) == (1.0, 0.1)
    assert op(first, Solarize) is None
    assert op(second, Solarize) == Solarize(0.2, 128)


def test_small_and_grey_and_multi_crop() -> None:
    assert op(views.small(32)[0], GaussianBlur) is None
    assert op(views.grey(28)[0], ColorJitter) == ColorJitter(0.4, 0.4, p=0.8)
    assert op(views.grey(28)[0], Grayscale) is None
    crops = views.multi_crop(64, 32)
    assert [pipeline.size for pipeline in crops] == [(64, 64)] * 2 + [(32, 32)] * 6
    assert [view.shape for view in crops(photo(90, 90), output="array")] == [(64, 64, 3)] * 2 + [(32, 32, 3)] * 6


def test_two_views_in_one_line_differ_and_a_seed_repeats_them() -> None:
    image = photo(80, 70)
    x1, x2 = views.simclr(48)(image, seed=3)
    assert x1.shape == x2.shape == (3, 48, 48)
    assert x1.dtype == torch.float32
    assert 0 <= x1.min() < x1.max() <= 1
    assert not torch.equal(x1, x2)
    for again, first in zip(views.simclr(48)(image, seed=3), (x1, x2), strict=True):
        np.testing.assert_array_equal(again, first)
    stream, same = views.simclr(48, seed=9), views.simclr(48, seed=9)
    a, b, c = stream(image)[0], same(image)[0], stream(image)[0]
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_generators_of_both_kinds_are_taken() -> None:
    image = photo(40, 40)
    pair = [views.small(32)(image, seed=np.random.default_rng(4))[0] for _ in range(2)]
    np.testing.assert_array_equal(*pair)
    pair = [views.small(32)(image, seed=torch.Generator().manual_seed(4))[0] for _ in range(2)]
    np.testing.assert_array_equal(*pair)


def test_whatever_holds_an_image_gives_the_same_tensors(tmp_path: Path) -> None:
    image = photo(80, 70)
    two = views.simclr(32)
    expected = two(image, seed=1)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    floats = torch.from_numpy(image / 255).permute(2, 0, 1).float()
    for given in (
        torch.from_numpy(image).permute(2, 0, 1),
        floats,
        (image / 255).astype(np.float32),
        Image.fromarray(image),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
    ):
        for view, same in zip(two(given, seed=1), expected, strict=True):
            assert view.dtype == torch.float32
            assert view.is_contiguous()
            assert torch.equal(view, same)
    assert two(Image.fromarray(image).convert("L"), seed=1)[0].shape == (1, 32, 32)
    assert two(image[..., 0], seed=1)[0].shape == (1, 32, 32)


def test_a_batch_has_parameters_for_each_sample() -> None:
    images = torch.from_numpy(np.stack([photo(80, 70)] * 5)).permute(0, 3, 1, 2)
    batch = views.simclr(32)(images, seed=1)
    assert [tuple(view.shape) for view in batch] == [(5, 3, 32, 32)] * 2
    assert batch[0].dtype == torch.float32
    assert not torch.equal(batch[0][0], batch[0][1])
    assert torch.equal(views.simclr(32)(images / 255, seed=1)[0], batch[0])
    arrays = views.simclr(32)(images, seed=1, output="array")
    np.testing.assert_allclose(arrays[0].transpose(0, 3, 1, 2) / 255, batch[0], atol=1e-6)


def test_mean_and_std_normalise_and_arrays_keep_their_values() -> None:
    image = photo(80, 70)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    plain, array = (views.simclr(32)(image, seed=1, **kw)[0] for kw in ({}, {"output": "array"}))
    assert array.dtype == np.uint8
    np.testing.assert_allclose(plain, array.transpose(2, 0, 1) / 255, atol=1e-7)
    normal = views.simclr(32)(image, seed=1, mean=mean, std=std)[0]
    np.testing.assert_allclose(
        normal, (array / 255 - mean).transpose(2, 0, 1) / np.array(std)[:, None, None], atol=1e-5
    )
    assert views.simclr(32)(image[..., 0], seed=1, output="array")[0].shape == (32, 32)
    deep = (image.astype(np.uint16) * 257)[:40, :40]
    (patch,) = views.patches(40, seed=0)(deep)
    np.testing.assert_allclose(np.sort(patch.numpy(), None), np.sort(deep / 65535, None), atol=1e-6)
    with pytest.raises(UserError, match="mean is one number or 3"):
        views.simclr(32)(image, mean=(0.5, 0.5))
    with pytest.raises(UserError, match="std above 0"):
        views.simclr(32)(image, std=0.0)
    with pytest.raises(UserError, match="arrays keep their values"):
        views.simclr(32)(image, mean=0.5, output="array")
    with pytest.raises(UserError, match="'tensor' or 'array'"):
        views.simclr(32)(image, output="pil")


class _Viewed(torch.utils.data.Dataset):
    """One image again and again, through one set of views."""

    def __init__(self) -> None:
        self.transform, self.image = views.simclr(16, seed=5), photo(40, 40)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(self.image)[0]


def test_processes_of_a_loader_draw_their_own_views_and_a_seed_repeats_them() -> None:
    def epochs() -> list[torch.Tensor]:
        torch.manual_seed(0)
        loader = torch.utils.data.DataLoader(_Viewed(), batch_size=3, num_workers=2)
        return [view for _ in range(2) for batch in loader for view in batch]

    first = epochs()
    assert len({view.numpy().tobytes() for view in first}) == len(first)
    assert all(torch.equal(a, b) for a, b in zip(first, epochs(), strict=True))


def test_what_can_not_be_viewed_says_so(tmp_path: Path) -> None:
    two = views.simclr(32)
    (tmp_path / "a.jpg").write_text("not an image")
    for given, words in (
        (tmp_path / "a.jpg", "not an image"),
        (tmp_path / "b.jpg", "can't be read"),
        (17, "array, a tensor, a PIL image or a path"),
        (torch.zeros(5, 5, dtype=torch.uint8), r"\(C, H, W\)"),
        (np.full((40, 40, 3), 2.0), r"float images lie in \[0, 1\], got 2 to 2"),
        (torch.full((2, 3, 40, 40), -1.0), r"float images lie in \[0, 1\], got -1 to -1"),
        (np.zeros((4, 4, 4, 4), np.uint8), "height, width"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
    ):
        with pytest.raises(UserError, match=words):
            two(given)


def test_plain_has_no_chance_and_shows_the_middle() -> None:
    image = photo(120, 90)
    (a,), (b,) = (views.plain(48)(image, output="array") for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert a.shape == (48, 48, 3)
    (whole,) = views.plain(48)(image[15:105], output="array")
    assert np.abs(a.astype(int) - whole).mean() < 6
    square = photo(48, 48)
    np.testing.assert_array_equal(views.plain(48)(square, output="array")[0], square)


def test_patches_show_all_eight_positions_evenly() -> None:
    image = np.arange(9, dtype=np.float32).reshape(3, 3)
    seen: dict[bytes, int] = {}
    draw = views.patches(3, seed=0)
    for _ in range(1600):
        patch = draw(image, output="array")[0]
        assert patch.dtype == np.float32
        seen[patch.tobytes()] = seen.get(patch.tobytes(), 0) + 1
    assert len(seen) == 8
    assert min(seen.values()) > 140
    assert views.patches((4, 6))(np.zeros((9, 9, 2), np.uint16))[0].shape == (2, 4, 6)
