"""Recipes: fields to views, shared geometry, aligned grids, views of views, frames before decoding."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from selftaught import views
from selftaught.data import to_unit
from selftaught.errors import UserError
from selftaught.views import Dihedral, HorizontalFlip, Pipeline, RandomCrop, RandomResizedCrop, Recipe, View
from selftaught.views.clips.temporal import TemporalCrop
from tests.views.every_op import batched, sample_of, unbatched
from tests.views.helpers import photo
from tests.views.test_executors import Shade

RNG = np.random.default_rng


def shapes(sample: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in sample.items()}


def test_a_list_of_pipelines_draws_and_renders_as_before() -> None:
    image, pipelines = photo(60, 70), list(views.barlow_twins(32))
    recipe = Recipe.of(pipelines)
    assert [view.name for view in recipe.views] == ["view 1", "view 2"]
    params = recipe.sample(RNG(3), {"image": image.shape})
    rng = RNG(3)
    for view, pipeline in zip(recipe.views, pipelines, strict=True):
        expected = pipeline.sample(rng, 60, 70)
        np.testing.assert_array_equal(params[view.name], expected)
        np.testing.assert_array_equal(
            recipe.render({"image": image}, params)[view.name], views.render(image, pipeline, expected)
        )
    assert [view.name for view in Recipe.of([Pipeline(()), Pipeline(())]).views] == ["view 1", "view 2"]
    assert recipe.enough == {"image": max(pipeline.enough for pipeline in pipelines)}


def joint(*more) -> Recipe:
    pipeline = Pipeline((RandomResizedCrop(24), HorizontalFlip(), views.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1.0), *more))
    return Recipe(tuple(View(name, name, pipeline, space="frame") for name in ("image", "mask", "depth")))


def test_fields_of_one_space_move_together_and_only_the_image_changes_colour() -> None:
    rows, columns = np.mgrid[:50, :60]
    image = np.stack([rows * 4, columns * 4, rows * 0], 2).astype(np.uint8)
    sample = {"image": image, "mask": columns.astype(np.int64), "depth": rows.astype(np.float32)}
    still = Recipe(
        tuple(View(n, n, (RandomCrop(24), Dihedral()), space="frame") for n in ("image", "mask", "depth"))
    ).with_kinds({"depth": "depth"})
    seen = set()
    for seed in range(20):
        params = still.sample(RNG(seed), shapes(sample))
        out = still.render(sample, params)
        np.testing.assert_array_equal(out["image"][:, :, 1], out["mask"] * 4)
        np.testing.assert_array_equal(out["image"][:, :, 0], out["depth"] * 4)
        seen.add(params["image"].tobytes())
        assert params["image"].tobytes() == params["mask"].tobytes()
    assert len(seen) == 20
    params = joint().sample(RNG(0), shapes(sample))
    np.testing.assert_array_equal(params["image"][:6], params["mask"][:6])
    assert not np.array_equal(params["image"][6:], params["mask"][6:])
    out = joint().render(sample, params)
    assert set(np.unique(out["mask"])) <= set(range(60))
    assert out["depth"].dtype == np.float32


def test_grids_of_unlike_fineness_stay_aligned_to_the_pixel() -> None:
    low = np.arange(30 * 40, dtype=np.float32).reshape(30, 40, 1)
    high = np.repeat(np.repeat(low, 4, 0), 4, 1)
    recipe = Recipe(
        (
            View("low", "low", (RandomCrop(12), Dihedral()), space="s"),
            View("high", "high", (RandomCrop(48), Dihedral()), space="s", scale=4),
        )
    )
    for spare in (0, 3):  # a few rows more than four times as many
        sample = {"low": low, "high": np.pad(high, ((0, spare), (0, spare), (0, 0)), mode="edge")}
        for seed in range(10):
            out = recipe.render(sample, recipe.sample(RNG(seed), shapes(sample)))
            np.testing.assert_array_equal(out["high"][::4, ::4], out["low"])
            np.testing.assert_array_equal(out["high"][3::4, 3::4], out["low"])
    resized = Recipe(
        (
            View("low", "low", (RandomResizedCrop(10),), space="s"),
            View("high", "high", (RandomResizedCrop(20),), space="s", scale=2),
        )
    )
    sizes = {"low": (90, 80, 3), "high": (180, 160, 3)}
    for seed in range(20):
        params = resized.sample(RNG(seed), sizes)
        np.testing.assert_array_equal(params["high"][:4], 2 * params["low"][:4])
        assert params["high"][4] == params["low"][4]
    assert recipe.enough == {"low": None, "high": None}


def test_grids_that_do_not_cover_the_same_ground_are_refused() -> None:
    def sizes(low: tuple[int, int], high: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        return {"low": (*low, 3), "high": (*high, 3)}

    def recipe(*ops) -> Recipe:
        fine = tuple(RandomCrop(16) if isinstance(op, RandomCrop) else op for op in ops)
        return Recipe((View("low", "low", ops, space="s"), View("high", "high", fine, space="s", scale=2)))

    recipe(RandomCrop(8)).sample(RNG(0), sizes((20, 20), (41, 40)))
    with pytest.raises(UserError, match=r"don't cover the same ground.*'low' 20x20, 'high' 43x40"):
        recipe(RandomCrop(8)).sample(RNG(0), sizes((20, 20), (43, 40)))
    with pytest.raises(UserError, match="don't cover the same ground"):
        recipe(HorizontalFlip()).sample(RNG(0), sizes((20, 20), (40, 41)))
    with pytest.raises(UserError, match="don't cover the same ground"):
        joint().sample(RNG(0), {"image": (40, 40, 3), "mask": (40, 41), "depth": (40, 40)})
    with pytest.raises(UserError, match="RandomCrop: the image is 7x9"):
        recipe(RandomCrop(8)).sample(RNG(0), sizes((7, 9), (14, 18)))


def test_views_of_views_and_their_facts() -> None:
    recipe = Recipe(
        (
            View("_crop", "image", (RandomCrop(20),)),
            View("clean", "_crop", (HorizontalFlip(1.0),)),
            View("dark", "clean", (Shade(1.0),)),
        )
    )
    image = sample_of("image", np.float32)
    params = recipe.sample(RNG(1), {"image": image.shape})
    out = recipe.render({"image": image}, params)
    assert out.keys() == {"clean", "dark", "dark.factor"}
    np.testing.assert_allclose(out["dark"], out["clean"] * out["dark.factor"], rtol=1e-6)
    assert recipe.fields == ("image",)
    assert recipe.enough == {"image": None}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32], ids=["uint8", "float32"])
def test_both_executors_make_the_same_views(dtype: type) -> None:
    colour = (views.ColorJitter(0.4, 0.4, 0.4, 0.1),) if dtype == np.uint8 else ()
    geometry = (RandomResizedCrop(24), HorizontalFlip())
    recipe = Recipe(
        (
            View("image", "image", (*geometry, *colour), space="s"),
            View("mask", "mask", geometry, space="s"),
            View("clip", "clip", (TemporalCrop(3), *geometry, *colour)),
            View("dark", "image", (RandomCrop(12), Shade(0.7))),
            View("name", "name"),
        ),
        kinds={"name": "value"},
    )
    kinds = ("image", "mask", "clip")
    samples = [{kind: sample_of(kind, dtype, which) for kind in kinds} | {"name": np.zeros(2)} for which in range(5)]
    rng = RNG(0)
    params = [recipe.sample(rng, shapes(sample)) for sample in samples]
    alone = [recipe.render(sample, one) for sample, one in zip(samples, params, strict=True)]
    batch = {kind: batched([sample[kind] for sample in samples], kind) for kind in kinds}
    together = recipe.render_batch(batch | {"name": torch.zeros(5, 2)}, Recipe.stack_params(params))
    assert together.keys() == alone[0].keys() == {"image", "mask", "clip", "dark", "dark.factor", "name"}
    for name, kind in (("image", "image"), ("mask", "mask"), ("clip", "clip"), ("dark", "image")):
        one, many = np.stack([out[name] for out in alone]), unbatched(together[name], kind)
        assert np.abs(one.astype(float) - many).max() <= (2 if dtype == np.uint8 else 1e-5), name
    np.testing.assert_allclose([out["dark.factor"] for out in alone], together["dark.factor"], rtol=1e-6)


def test_sampling_depends_on_the_generator_s_state_alone() -> None:
    sizes = {"image": (50, 60, 3), "mask": (50, 60), "depth": (50, 60)}
    recipe = joint()
    first, again, other = (recipe.sample(RNG(seed), sizes) for seed in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["image"], other["image"])


def test_frames_drawn_before_decoding_give_the_same_views() -> None:
    clip = np.arange(40, dtype=np.float32)[:, None, None, None] * np.ones((1, 20, 22, 1), np.float32)
    recipe = Recipe(
        (
            View("near", "clip", (TemporalCrop(4, stride=2), RandomCrop(8))),
            View("far", "clip", (TemporalCrop(3, stride=5, jitter=True), RandomCrop(8))),
        )
    )
    for seed in range(10):
        whole = recipe.render({"clip": clip}, recipe.sample(RNG(seed), {"clip": clip.shape}))
        rng = RNG(seed)
        frames = recipe.frames(rng, {"clip": 40})
        read = clip[frames.read["clip"]]
        assert len(read) <= 7
        part = recipe.render({"clip": read}, recipe.sample(rng, {"clip": read.shape}, frames))
        for name in ("near", "far"):
            np.testing.assert_array_equal(part[name], whole[name])
            np.testing.assert_array_equal(part[name][:, 0, 0, 0], frames.params[name])
    whole = Recipe((*recipe.views, View("all", "clip", (RandomCrop(8),))))
    assert whole.frames(RNG(0), {"clip": 40}).read == {}
    with pytest.raises(UserError, match="say how many 'clip' has"):
        recipe.frames(RNG(0), {})


def test_recipes_travel_to_other_processes_after_use() -> None:
    recipe, sizes = joint(), {"image": (50, 60, 3), "mask": (50, 60), "depth": (50, 60)}
    sample = {name: np.zeros(shape, np.uint8) for name, shape in sizes.items()}
    recipe.render(sample, recipe.sample(RNG(0), sizes))
    copy = pickle.loads(pickle.dumps(recipe))
    assert copy == recipe
    assert hash(copy) == hash(recipe)
    np.testing.assert_array_equal(copy.sample(RNG(1), sizes)["image"], recipe.sample(RNG(1), sizes)["image"])
    with pytest.raises(UserError, match="no parameters for view 'mask'"):
        recipe.render(sample, {"image": recipe.sample(RNG(0), sizes)["image"]})


def test_clips_of_one_space_show_the_same_frames() -> None:
    ops = (TemporalCrop(3, jitter=True, stride=2), RandomCrop(8))
    recipe = Recipe((View("a", "a", ops, space="s"), View("b", "b", ops, space="s")))
    clip = np.random.default_rng(0).integers(0, 255, (20, 12, 12, 1), dtype=np.uint8)
    frames = recipe.frames(RNG(0), {"a": 20, "b": 20})
    np.testing.assert_array_equal(frames.read["a"], frames.read["b"])
    out = recipe.render({"a": clip, "b": clip}, recipe.sample(RNG(0), {"a": clip.shape, "b": clip.shape}))
    np.testing.assert_array_equal(out["a"], out["b"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Recipe(()), "one View or more"),
        (lambda: Recipe((View("a", "x"), View("a", "y"))), "two views are named 'a'"),
        (lambda: Recipe((View("a", "b"), View("b", "x"))), "'b', a later view's name"),
        (lambda: View("a.b", "x"), "without dots"),
        (lambda: View("a", "x", scale=2), "needs the name of a space"),
        (lambda: View("a", "x", space="s", scale=0), "scale is a whole number"),
        (lambda: Recipe((View("a", "x", (RandomCrop(8),), "s", 2),)), "has scale 2; it must be 1"),
        (lambda: Recipe((View("a", "x", (RandomCrop(8),), "s"), View("b", "y", (), "s"))), "move differently"),
        (
            lambda: Recipe((View("a", "x", (RandomCrop(8),), "s"), View("b", "y", (RandomCrop(9),), "s", 2))),
            "size 9 is no multiple of this view's scale 2",
        ),
        (
            lambda: Recipe((View("a", "x", (RandomCrop(8),), "s"), View("b", "a", (RandomCrop(8),), "s"))),
            "which moved in space 's'",
        ),
        (lambda: Recipe((View("a", "x", (Shade(), Shade())),)), "two operations of view 'a' report 'factor'"),
        (
            lambda: Recipe((View("a", "x", Pipeline((HorizontalFlip(),), per_frame=True), "s"),)),
            "can't share space 's'",
        ),
        (lambda: Pipeline((HorizontalFlip(), TemporalCrop(2))), "it comes first"),
        (lambda: TemporalCrop(0), "frames is a whole number"),
        (lambda: Recipe((View("a", "x"),)).sample(RNG(0), {"y": (3, 3, 3)}), "no field 'x' in the sample; it has y"),
        (lambda: Recipe((View("a", "x"),)).render({}, {}), "no field 'x' in the sample; it has none"),
        (lambda: Recipe((View("a", "x", (RandomCrop(2),)),)).sample(RNG(0), {"x": (5,)}), "not value"),
    ],
)
def test_recipes_that_make_no_sense_say_so(make, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", [(RandomCrop(24), Dihedral()), (), (views.Resize(40), RandomCrop(24))])
@pytest.mark.parametrize("kind", ["image", "clip"])
def test_pixels_made_ready_late_are_those_made_ready_before(first: tuple, kind: str) -> None:
    taken = []

    def ready(x: np.ndarray) -> np.ndarray:
        taken.append(x.size)
        return to_unit(x, [[100.0, 900.0]])

    shape = (50, 60, 3) if kind == "image" else (4, 50, 60, 3)
    value = RNG(0).integers(0, 1000, shape).astype(np.uint16)
    noisy = (*first, views.GaussianNoise((5.0, 25.0)))
    recipe = Recipe((View("clean", "x", first), View("noisy", "x", noisy), View("again", "clean", noisy[-1:])))
    recipe = recipe.with_kinds({"x": kind})
    params = recipe.sample(RNG(1), {"x": shape})
    before = recipe.render({"x": to_unit(value, [[100.0, 900.0]])}, params)
    late = recipe.render({"x": value}, params, {"x": ready})
    assert before.keys() == late.keys()
    for name, made in before.items():
        assert made.dtype == late[name].dtype == np.float32
        np.testing.assert_array_equal(made, late[name])
    crop = 24 * 24 * 3 * (1 if kind == "image" else 4)
    assert taken == ([crop, crop] if first and isinstance(first[0], RandomCrop) else [value.size])


def test_pixels_made_ready_to_what_an_operation_refuses_are_refused() -> None:
    recipe = Recipe((View("seen", "x", (RandomCrop(8), views.ColorJitter(0.4, 0.4, 0.4, 0.1))),))
    image = photo(20, 20)
    with pytest.raises(UserError, match="ColorJitter: works on uint8 images, got float32"):
        recipe.render({"x": image}, recipe.sample(RNG(0), {"x": image.shape}), {"x": to_unit})
