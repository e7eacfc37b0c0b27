"""The description: validation, drawing, distributions, round trips."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import yaml

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import HorizontalFlip, Pipeline, RandomResizedCrop, ViewSet, arithmetic

FULL = Pipeline(
    (
        views.RandomResizedCrop((40, 56), scale=(0.2, 1.0)),
        views.HorizontalFlip(0.3),
        views.ColorJitter(0.4, (0.5, 1.1), 0.2, 0.1, p=0.7, order="random"),
        views.Grayscale(0.1),
        views.GaussianBlur(0.6, (0.2, 1.5), kernel_size=7),
        views.Solarize(0.25, threshold=100),
    ),
    name="everything",
)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: views.RandomResizedCrop(0), "size"),
        (lambda: views.RandomResizedCrop((3, 4, 5)), "size"),
        (lambda: views.RandomResizedCrop("96"), "size"),
        (lambda: views.RandomResizedCrop(96, scale=(0.5, 0.2)), "scale"),
        (lambda: views.RandomResizedCrop(96, scale=(0.0, 1.5)), "scale"),
        (lambda: views.RandomResizedCrop(96, ratio=(2.0, 1.0)), "ratio"),
        (lambda: views.Resize(-1), "size"),
        (lambda: views.HorizontalFlip(1.5), "p is a probability"),
        (lambda: views.ColorJitter(-0.1), "brightness"),
        (lambda: views.ColorJitter(0.4, hue=0.6), "hue"),
        (lambda: views.ColorJitter(0.4, order="bcs"), "order"),
        (lambda: views.GaussianBlur(0.5, (2.0, 1.0)), "sigma"),
        (lambda: views.GaussianBlur(0.5, kernel_size=4), "kernel_size"),
        (lambda: views.Solarize(0.5, threshold=300), "threshold"),
        (lambda: views.Solarize(0.5, threshold=True), "threshold"),
        (lambda: views.ColorJitter(True), "brightness"),
        (lambda: views.ColorJitter(0.4, hue=True), "hue"),
        (lambda: views.ColorJitter(float("nan")), "brightness"),
        (lambda: views.HorizontalFlip(float("nan")), "p is a probability"),
        (lambda: views.RandomCrop(True), "size"),
        (lambda: views.GaussianBlur(0.5, ("0.1", 2)), "sigma"),
        (lambda: views.RandomResizedCrop(96, scale=(float("nan"), 1.0)), "scale"),
        (lambda: Pipeline(("crop",)), "no view operation"),
        (lambda: ViewSet([]), "at least one"),
        (lambda: views.plain(64, resize=32), "resize"),
        (lambda: views.multi_crop(n_global=0, n_local=0), "at least one"),
        (lambda: views.stack_params([]), "no parameters"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(make, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_round_trip_through_yaml() -> None:
    text = yaml.safe_dump(FULL.to_dict())
    assert Pipeline.from_dict(yaml.safe_load(text)) == FULL
    both = views.barlow_twins(64)
    assert ViewSet.from_dict(yaml.safe_load(yaml.safe_dump(both.to_dict()))) == both
    assert hash(Pipeline.from_dict(FULL.to_dict())) == hash(FULL)


def test_reading_names_what_it_does_not_know() -> None:
    with pytest.raises(UserError, match=r"no view operation 'Blurr'.*GaussianBlur"):
        Pipeline.from_dict({"ops": [{"op": "Blurr"}]})
    with pytest.raises(UserError, match=r"no option 'sigmas'.*sigma"):
        Pipeline.from_dict({"ops": [{"op": "GaussianBlur", "sigmas": 3}]})
    with pytest.raises(UserError, match="size"):
        Pipeline.from_dict({"ops": [{"op": "RandomCrop"}]})
    with pytest.raises(UserError, match="'ops'"):
        Pipeline.from_dict({"operations": []})


def test_repr_says_what_it_does() -> None:
    text = repr(FULL)
    assert text.startswith("Pipeline(everything: RandomResizedCrop((40, 56), scale=(0.2, 1)) > HorizontalFlip(p=0.3) >")
    assert "Solarize(p=0.25, threshold=100)" in text
    assert repr(views.RandomResizedCrop((96, 96))) == "RandomResizedCrop(96)"
    assert repr(views.simclr(32)).count("RandomResizedCrop(32)") == 2


@pytest.mark.parametrize(("height", "width"), [(64, 48), (7, 200), (300, 290)])
def test_a_batch_is_drawn_as_its_samples_one_by_one(height: int, width: int) -> None:
    together = FULL.sample_batch(np.random.default_rng(5), 60, height, width)
    rng = np.random.default_rng(5)
    alone = views.stack_params([FULL.sample(rng, height, width) for _ in range(60)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


def test_a_batch_of_unequal_images_is_drawn_for_their_sizes() -> None:
    heights, widths = np.array([40, 100, 333]), np.array([90, 51, 700])
    together = FULL.sample_batch(np.random.default_rng(6), 3, heights, widths)
    rng = np.random.default_rng(6)
    for row, height, width in zip(together, heights, widths, strict=True):
        np.testing.assert_allclose(row, FULL.sample(rng, height, width), atol=1e-12)
    resize = Pipeline((views.Resize(32), views.CenterCrop(32)))
    corners = resize.sample_batch(np.random.default_rng(0), 3, heights, widths)[:, -2:]
    np.testing.assert_array_equal(corners, [[0, 20], [15, 0], [0, 17]])


def test_a_seed_fixes_the_draw() -> None:
    first, second, other = (FULL.sample(np.random.default_rng(seed), 60, 60) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_means_and_probabilities_are_those_described() -> None:
    params = FULL.sample_batch(np.random.default_rng(0), 20000, 64, 64)
    column = dict(zip(FULL.columns, params.T, strict=True))
    for name, expected in {
        "1.HorizontalFlip.flip": 0.3,
        "2.ColorJitter.apply": 0.7,
        "3.Grayscale.apply": 0.1,
        "4.GaussianBlur.apply": 0.6,
        "5.Solarize.apply": 0.25,
        "2.ColorJitter.brightness": 1.0,
        "2.ColorJitter.contrast": 0.8,
        "2.ColorJitter.saturation": 1.0,
        "2.ColorJitter.hue": 0.0,
        "4.GaussianBlur.sigma": 0.85,
    }.items():
        assert abs(column[name].mean() - expected) < 0.015, name
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.5, 1.1), "saturation": (0.8, 1.2), "hue": (-0.1, 0.1)}
    for name, (low, high) in ranges.items():
        drawn = column[f"2.ColorJitter.{name}"]
        assert low <= drawn.min() < low + 0.01
        assert high - 0.01 < drawn.max() <= high
    counts = np.bincount(column["2.ColorJitter.order"].astype(int), minlength=24)
    assert len(counts) == 24
    assert counts.min() > 20000 / 24 * 0.8


def test_independent_columns_do_not_move_together() -> None:
    params = FULL.sample_batch(np.random.default_rng(1), 8000, 64, 64)
    moving = params[:, np.ptp(params, axis=0) > 0]
    names = [name for name, spread in zip(FULL.columns, np.ptp(params, axis=0), strict=True) if spread > 0]
    correlation = np.corrcoef(moving.T)
    boxes = [place for place, name in enumerate(names) if name.startswith("0.")]
    correlation[np.ix_(boxes, boxes)] = 0
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.06


def test_crops_have_the_areas_and_ratios_described() -> None:
    crop = Pipeline((views.RandomResizedCrop(96, scale=(0.2, 0.6), ratio=(0.5, 2.0)),))
    top, left, height, width, level = crop.sample_batch(np.random.default_rng(0), 20000, 500, 500).T
    area, ratio = height * width / 500**2, width / height
    grid = 2.0**level
    assert np.all((top >= 0) & (left >= 0) & (top + height <= 500) & (left + width <= 500))
    assert area.min() > 0.19
    assert area.max() < 0.61
    assert abs(area.mean() - 0.4) < 0.01
    assert abs(np.log(ratio).mean()) < 0.01
    assert 0.48 < ratio.min() < 0.53
    assert 1.9 < ratio.max() < 2.1
    for side in (top, left, height, width):
        assert np.all(side % grid == 0)


def test_a_crop_that_never_fits_falls_back_to_the_middle() -> None:
    wide = Pipeline((views.RandomResizedCrop(8, scale=(0.9, 1.0), ratio=(0.9, 1.1)),))
    top, left, height, width, _ = wide.sample(np.random.default_rng(0), 10, 100)
    assert (top, left, height, width) == (0, 44, 10, 11)


def test_levels_follow_the_reduction() -> None:
    levels = [arithmetic.reduction_level(side, side, 96, 96) for side in (20, 96, 160, 162, 320, 330)]
    assert levels == [0, 0, 0, 1, 1, 2]
    assert arithmetic.reduction_level(3, 3, 1, 1) == 1


def test_images_smaller_than_the_crop_say_so() -> None:
    for op in (views.RandomCrop(32), views.CenterCrop(32)):
        with pytest.raises(UserError, match="image is 20x50, smaller than the crop 32x32"):
            Pipeline((op,)).sample(np.random.default_rng(0), 20, 50)
    with pytest.raises(UserError, match="image is 50x31, smaller"):
        Pipeline((views.RandomCrop(32),)).sample_batch(
            np.random.default_rng(0), 2, np.array([32, 50]), np.array([32, 31])
        )
    with pytest.raises(UserError, match="square"):
        Pipeline((views.Dihedral(),)).sample(np.random.default_rng(0), 20, 50)
    with pytest.raises(UserError, match="empty"):
        FULL.sample(np.random.default_rng(0), 0, 5)
    with pytest.raises(UserError, match="shape"):
        FULL.from_uniforms(np.zeros((4, 3)), 8, 8)


def test_size_is_known_where_it_is_fixed() -> None:
    assert FULL.size == (40, 56)
    assert Pipeline((views.Resize(32),)).size is None
    assert Pipeline((views.Resize(32), views.CenterCrop(32))).size == (32, 32)
    assert Pipeline((views.HorizontalFlip(),)).size is None
    assert Pipeline((views.Dihedral(),)).size is None
    assert views.patches(20)[0].size == (20, 20)


def test_explain_names_every_number() -> None:
    params = FULL.sample(np.random.default_rng(3), 64, 64)
    told = FULL.explain(params)
    assert [one["op"] for one in told] == [type(op).__name__ for op in FULL.ops]
    assert told[4]["sigma"] == params[FULL.columns.index("4.GaussianBlur.sigma")]


def test_taps_are_a_gaussian_in_256ths() -> None:
    for sigma in (0.1, 0.5, 1.0, 2.0, 5.0, 16.0):
        taps = arithmetic.blur_taps(sigma)
        assert taps.sum() == 256
        assert np.array_equal(taps, taps[::-1])
        reach = np.arange(len(taps)) - len(taps) // 2
        exact = np.exp(-(reach**2) / (2 * sigma**2))
        assert np.abs(taps / 256 - exact / exact.sum()).max() < 1.01 / 256
    assert len(arithmetic.blur_taps(2.0, 9)) == 9


def test_saturation_keeps_greys_and_sums_to_one() -> None:
    matrix = arithmetic.saturation_matrix(np.array([0.0, 0.37, 1.0, 1.8]))
    assert np.all(matrix.sum(-1) == 1024)
    np.testing.assert_array_equal(matrix[2], 1024 * np.eye(3))
    np.testing.assert_allclose(matrix[0] / 1024, np.tile([0.299, 0.587, 0.114], (3, 1)), atol=1e-3)


def test_describing_views_loads_neither_torch_nor_opencv() -> None:
    code = (
        "import sys, selftaught.views as v; v.simclr(96); print(int('torch' in sys.modules), int('cv2' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0"]
    assert "render" in dir(views)
    with pytest.raises(AttributeError, match="no attribute 'reneder'"):
        views.reneder  # noqa: B018


@pytest.mark.parametrize(
    ("size", "scale", "ratio"), [(64, (0.08, 1.0), (3 / 4, 4 / 3)), ((48, 20), (0.3, 0.6), (0.5, 3))]
)
def test_an_image_of_enough_pixels_never_has_a_crop_smaller_than_the_view(size, scale, ratio):
    op = RandomResizedCrop(size, scale, ratio)
    pipeline = Pipeline((op,))
    rng = np.random.default_rng(0)
    side = pipeline.enough
    out = (size, size) if isinstance(size, int) else size
    columns = pipeline.columns

    def smallest(side: int) -> np.ndarray:
        params = pipeline.sample_batch(rng, 20000, side, side + 37)
        found = [params[:, columns.index(f"0.RandomResizedCrop.{name}")] for name in ("height", "width")]
        return np.array([box.min() for box in found])

    assert (smallest(side) >= np.array(out) - 1).all()
    assert (smallest(side // 2) < np.array(out) - 1).any()


def test_enough_is_known_for_resizing_views_alone():
    assert views.plain(32, resize=40)[0].enough == 40
    assert views.patches(32)[0].enough is None
    assert Pipeline((HorizontalFlip(), RandomResizedCrop(8))).enough is None
    assert Pipeline(()).enough is None
