"""Views of clouds: what each operation does to places, normals and colours, and that recipes pack them."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught import views
from selftaught.data import open_source
from selftaught.engine.batches import Batches
from selftaught.errors import UserError
from selftaught.views import Pipeline, Recipe, View
from tests.views.instances.clouds import INSTANCES


def cloud(count: int = 200) -> np.ndarray:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    place, colour = rng.uniform(0, 2, (count, 3)), rng.uniform(0, 255, (count, 3))
    return np.concatenate((place, colour, normal, np.arange(count)[:, None]), 1).astype(np.float32)


def made(op: views.Op, x: np.ndarray, seed: int = 0) -> np.ndarray:
    pipeline = Pipeline((op,))
    params = pipeline.sample_shape(np.random.default_rng(seed), x.shape, "points")[0]
    found = views.render(x, pipeline, params, kind="points")
    np.testing.assert_array_equal(found, views.render(x, pipeline, params, kind="points"))
    return found


@pytest.mark.parametrize("op", INSTANCES, ids=repr)
def test_operations_leave_the_input_and_further_columns_alone(op: views.Op) -> None:
    x = cloud()
    before = x.copy()
    found = made(op, x)
    np.testing.assert_array_equal(x, before)
    rows = found[:, 9].astype(int)  # further features say which point it is
    assert len(found) > 0
    assert (np.diff(rows) > 0).all()
    if len(found) < len(x):
        np.testing.assert_array_equal(found, x[rows])
    assert found[:, 3:6].min() >= 0
    assert found[:, 3:6].max() <= 255
    np.testing.assert_allclose(np.linalg.norm(found[:, 6:9], axis=1), 1, atol=1e-5)


def test_turns_keep_distances_and_turn_normals_along() -> None:
    x = cloud()
    x[:, 6:9] = x[:, :3]
    for op in (views.TurnCloud(), views.TurnCloud(axis="x"), views.TurnCloud(axis="y"), views.FlipCloud(1.0)):
        found = made(op, x)
        assert np.abs(found[:, :3] - x[:, :3]).max() > 0.01
        np.testing.assert_allclose(np.linalg.norm(found[:, :3], axis=1), np.linalg.norm(x[:, :3], axis=1), atol=1e-5)
        np.testing.assert_allclose(found[:, 6:9], found[:, :3], atol=1e-5)
    np.testing.assert_allclose(made(views.TurnCloud(), x)[:, 2], x[:, 2])
    scaled = made(views.ScaleCloud((2, 2)), x)
    np.testing.assert_allclose(scaled[:, :3], 2 * x[:, :3])
    np.testing.assert_allclose(scaled[:, 6:9], x[:, 6:9])


def test_one_point_per_voxel_and_the_crop_is_a_ball() -> None:
    x = cloud(2000)
    found = made(views.OnePerVoxel(0.25), x)
    grid = np.floor(x[:, :3].astype(np.float64) / 0.25)
    assert len(found) == len(np.unique(grid, axis=0)) == len(np.unique(np.floor(found[:, :3] / 0.25), axis=0))
    assert len(made(views.CropCloud(50), x)) == 50
    ball = made(views.CropCloud(50), x)
    left = np.setdiff1d(x[:, 9], ball[:, 9]).astype(int)
    reach = min(np.linalg.norm(ball[:, :3] - p, axis=1).max() for p in ball[:, :3])
    assert any(
        np.linalg.norm(x[left, :3] - p, axis=1).min() >= np.linalg.norm(ball[:, :3] - p, axis=1).max() - 1e-6
        for p in ball[:, :3]
    ), reach


def test_centred_kept_and_grey() -> None:
    x = cloud()
    centred = made(views.CentreCloud(), x)[:, :3]
    np.testing.assert_allclose((centred.min(0) + centred.max(0))[:2], 0, atol=1e-5)
    assert centred[:, 2].min() == 0
    np.testing.assert_array_equal(made(views.KeepPlace(), x)[:, 10:], x[:, :3])
    assert np.ptp(made(views.CloudGrey(1.0), x)[:, 3:6], axis=1).max() == 0
    moved = made(views.JitterPlaces(0.5, 0.1), x)[:, :3] - x[:, :3]
    assert 0 < np.abs(moved).max() <= 0.1 + 1e-6


def test_recipes_of_clouds_come_as_packed_batches() -> None:
    source = open_source("point-rooms?points=600&train=3&test=0", split="all")
    ops = (views.KeepPlace(), views.OnePerVoxel(0.2), views.TurnCloud())
    recipe = Recipe((View("one", "points", Pipeline(ops)), View("two", "points", Pipeline(ops))))
    batch = Batches(source, recipe, seed=0)[0, [0, 2]]
    for name in ("one", "two"):
        assert batch[name]["feat"].shape == (len(batch[name]["coord"]), 9)
        assert batch[name]["offset"].shape == (2,)
        assert int(batch[name]["offset"][-1]) == len(batch[name]["coord"])
    whole = Batches(source, None, seed=0)[0, [0, 2]]["points"]
    assert whole["offset"].tolist() == [600, 1200]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: views.TurnCloud(axis="w"), "axis x, y or z"),
        (lambda: views.OnePerVoxel(0), "above 0"),
        (lambda: views.CropCloud(0), "from 1 on"),
        (lambda: views.DropPoints(1.0), "share"),
        (lambda: views.JitterPlaces(-1), "from 0 on"),
        (lambda: views.JitterColours(-1), "from 0 on"),
        (lambda: views.ShiftColours(2), "share of 255"),
        (
            lambda: Pipeline((views.TurnCloud(),)).sample_shape(np.random.default_rng(0), (8, 8, 3), "image"),
            "not image",
        ),
        (lambda: made(views.TurnCloud(), np.zeros((4, 6), np.float32)), "9\\+F"),
    ],
)
def test_wrong_numbers_are_refused(make: object, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        make()
