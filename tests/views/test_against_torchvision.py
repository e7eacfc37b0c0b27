"""Each operation against torchvision's, with the same parameters, within the tolerance that the docstring states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference

from selftaught import views
from selftaught.views import Op, Pipeline, arithmetic
from tests.views.helpers import photo

PHOTOS = [photo(144, 160, which=which) for which in range(3)]


def differences(op: Op, values: list[float], function) -> np.ndarray:
    """Absolute differences in grey levels over the photographs."""
    found = []
    for image in PHOTOS:
        ours = views.render(image, Pipeline((op,)), np.array(values, np.float64))
        theirs = function(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        found.append(np.abs(ours.astype(int) - theirs.astype(int)))
    return np.stack(found)


def jitter(**factors: float) -> list[float]:
    neutral = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0} | factors
    return [1.0, *neutral.values(), 0.0]


@pytest.mark.parametrize("factor", [0.0, 0.2, 0.7, 1.3, 1.8])
def test_brightness(factor: float) -> None:
    found = differences(
        views.ColorJitter(), jitter(brightness=factor), lambda x: reference.adjust_brightness(x, factor)
    )
    assert found.max() <= 1


@pytest.mark.parametrize("factor", [0.0, 0.2, 0.7, 1.3, 1.8])
def test_contrast(factor: float) -> None:
    found = differences(views.ColorJitter(), jitter(contrast=factor), lambda x: reference.adjust_contrast(x, factor))
    assert found.max() <= 1


@pytest.mark.parametrize("factor", [0.0, 0.2, 0.7, 1.3, 1.8])
def test_saturation(factor: float) -> None:
    found = differences(
        views.ColorJitter(), jitter(saturation=factor), lambda x: reference.adjust_saturation(x, factor)
    )
    assert found.max() <= 2
    assert found.mean() < 1


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.03, 0.1, 0.37])
def test_hue(shift: float) -> None:
    found = differences(views.ColorJitter(), jitter(hue=shift), lambda x: reference.adjust_hue(x, shift))
    assert found.max() <= 1
    assert found.mean() < 0.15


def test_the_four_in_their_order() -> None:
    def theirs(x: torch.Tensor) -> torch.Tensor:
        x = reference.adjust_contrast(reference.adjust_brightness(x, 1.3), 0.8)
        return reference.adjust_hue(reference.adjust_saturation(x, 1.2), 0.08)

    values = jitter(brightness=1.3, contrast=0.8, saturation=1.2, hue=0.08)
    found = differences(views.ColorJitter(), values, theirs)
    assert found.max() <= 6
    assert found.mean() < 1.5
    exact = differences(views.ColorJitter(), values, lambda x: theirs(x / 255) * 255)
    dropped = differences(views.HorizontalFlip(), [0.0], lambda x: x + (theirs(x / 255) * 255 - theirs(x)))
    assert exact.mean() < 0.75 * dropped.mean()  # nearer to the formula than torchvision's own uint8
    other = differences(views.ColorJitter(), [*values[:5], float(views.spec.ORDERS.index("hscb"))], theirs)
    assert other.mean() > found.mean() + 0.5


def test_grayscale() -> None:
    assert differences(views.Grayscale(), [1.0], lambda x: reference.rgb_to_grayscale(x, 3)).max() <= 1


@pytest.mark.parametrize("threshold", [0, 60, 128, 200])
def test_solarize_is_exact(threshold: int) -> None:
    op = views.Solarize(1.0, threshold)
    assert differences(op, [1.0], lambda x: reference.solarize(x, threshold)).max() == 0


@pytest.mark.parametrize(("sigma", "cap"), [(0.3, None), (0.6, None), (1.0, None), (2.0, None), (4.0, None), (2.0, 9)])
def test_blur_at_the_same_kernel(sigma: float, cap: int | None) -> None:
    width = 2 * arithmetic.blur_radius(sigma, cap) + 1
    op = views.GaussianBlur(1.0, kernel_size=cap)
    found = differences(op, [1.0, sigma], lambda x: reference.gaussian_blur(x, [width, width], [sigma, sigma]))
    assert found.max() <= 2
    assert found.mean() < 0.15


def test_enlarging() -> None:
    op = views.Resize((200, 231))
    values = [0, 0, 144, 160, 0]
    assert differences(op, values, lambda x: reference.resize(x, [200, 231], antialias=True)).max() <= 1


def test_crop_then_enlarge_stays_inside_the_box() -> None:
    op = views.RandomResizedCrop(96)

    def theirs(x: torch.Tensor) -> torch.Tensor:
        return reference.resized_crop(x, 11, 23, 61, 50, [96, 96], antialias=True)

    assert differences(op, [11, 23, 61, 50, 0], theirs).max() <= 1


@pytest.mark.parametrize("size", [(64, 64), (36, 40), (32, 32)])
def test_shrinking_averages_instead_of_aliasing(size: tuple[int, int]) -> None:
    pipeline = Pipeline((views.Resize(size),))
    for image in PHOTOS:
        ours = views.render(image, pipeline, pipeline.sample(np.random.default_rng(0), 144, 160))
        x = torch.from_numpy(image).permute(2, 0, 1)
        smooth, rough = (
            reference.resize(x, list(size), antialias=on).permute(1, 2, 0).numpy().astype(float) for on in (True, False)
        )
        ours_db, rough_db = (10 * np.log10(255**2 / np.mean((smooth - y) ** 2)) for y in (ours, rough))
        assert ours_db > 30
        assert ours_db > rough_db + 5


def test_crop_boxes_are_distributed_as_torchvision_draws_them() -> None:
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.zeros(3, 120, 90)
    theirs = np.array([RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)])
    ours = Pipeline((views.RandomResizedCrop(96),)).sample_batch(np.random.default_rng(0), 4000, 120, 90)
    for column in range(4):
        low, high = np.quantile(theirs[:, column], [0.1, 0.9])
        np.testing.assert_allclose(np.quantile(ours[:, column], [0.1, 0.9]), [low, high], atol=4)
        assert abs(ours[:, column].mean() - theirs[:, column].mean()) < 2
