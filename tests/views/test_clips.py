"""Clips: which frames, which tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import Pipeline, RandomResizedCrop, Recipe, TemporalCrop, TubeMask, View

RNG = np.random.default_rng


def drawn(op: TemporalCrop, count: int, seed: int) -> np.ndarray:
    params, shape = Pipeline((op,)).sample_shape(RNG(seed), (count, 4, 4, 1), "clip")
    assert shape == (op.frames, 4, 4, 1)
    return op.indices(params)


def test_a_stretch_is_evenly_spaced_and_its_start_even() -> None:
    op = TemporalCrop(4, stride=3)
    starts = []
    for seed in range(600):
        numbers = drawn(op, 15, seed)
        np.testing.assert_array_equal(np.diff(numbers), 3)
        starts.append(numbers[0])
    assert np.bincount(starts).tolist() == pytest.approx([100] * 6, rel=0.35)
    np.testing.assert_array_equal(drawn(op, 10, 0), [0, 3, 6, 9])


def test_jitter_moves_each_frame_within_its_stride() -> None:
    op, seen = TemporalCrop(4, stride=3, jitter=True), []
    for seed in range(600):
        numbers = drawn(op, 12, seed)
        assert (numbers // 3 == np.arange(4)).all()
        seen.append(numbers % 3)
    shares = np.stack(seen).mean(0)
    np.testing.assert_allclose(shares, 1, atol=0.12)
    assert abs(np.corrcoef(np.stack(seen).T)[0, 1]) < 0.12


@pytest.mark.parametrize(
    ("count", "numbers"), [(1, [0, 0, 0, 0]), (2, [0, 0, 1, 1]), (4, [0, 1, 2, 3]), (9, [1, 3, 5, 7])]
)
def test_short_clips_are_shown_whole(count: int, numbers: list[int]) -> None:
    np.testing.assert_array_equal(drawn(TemporalCrop(4, stride=3), count, 0), numbers)


def test_frames_are_picked_before_they_are_cropped() -> None:
    clip = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 20, 20, 3), np.uint8)
    pipeline = Pipeline((TemporalCrop(5, stride=2), RandomResizedCrop(8)))
    params, shape = pipeline.sample_shape(RNG(0), clip.shape, "clip")
    view = views.render(clip, pipeline, params, kind="clip")
    assert view.shape == shape == (5, 8, 8, 3)
    np.testing.assert_array_equal(view[:, 0, 0, 0], TemporalCrop(5, stride=2).indices(params))
    assert pipeline.size == (8, 8)
    assert pipeline.enough == RandomResizedCrop(8).enough
    with pytest.raises(UserError, match="needs the number of frames"):
        pipeline.sample(RNG(0), 20, 20)
    with pytest.raises(UserError, match=r"frame \d+ of a clip of 4"):
        views.render(clip[:4], pipeline, params, kind="clip")
    with pytest.raises(UserError, match="not of a field of kind 'image'"):
        pipeline.sample_shape(RNG(0), (20, 20, 3), "image")


def test_a_tube_hides_the_same_places_at_every_time_and_exactly_so_many() -> None:
    op = TubeMask(0.9, tubelet=2, patch=16, count=5)
    clip = np.zeros((8, 112, 112, 1), np.float32)
    recipe = Recipe((View("clip", "clip", (op,)),))
    seen = []
    for seed in range(20):
        made = recipe.render({"clip": clip}, recipe.sample(RNG(seed), {"clip": clip.shape}))
        masks = made["clip.mask"]
        assert masks.shape == (5, 4 * 7 * 7)
        assert masks.dtype == bool
        steps = masks.reshape(5, 4, 49)
        assert (steps == steps[:, :1]).all()
        assert (steps.sum(2) == int(0.9 * 49)).all()
        seen.append(steps[:, 0])
    rate = np.concatenate(seen).mean(0)
    np.testing.assert_allclose(rate, 44 / 49, atol=0.12)
    assert len({mask.tobytes() for mask in np.concatenate(seen)}) == 100


def test_masks_are_facts_of_a_batch_too() -> None:
    op = TubeMask(0.5, patch=4, fact="hidden")
    recipe = Recipe((View("x", "clip", (op,)),))
    params = Recipe.stack_params([recipe.sample(RNG(seed), {"clip": (4, 8, 8, 3)}) for seed in range(3)])
    made = recipe.render_batch({"clip": torch.zeros(3, 3, 4, 8, 8)}, params)
    assert made["x.hidden"].shape == (3, 1, 8)
    assert made["x.hidden"].dtype == torch.bool
    for row, mask in zip(params["x"], made["x.hidden"], strict=True):
        np.testing.assert_array_equal(mask, op.masks(row, 4, 8, 8))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TubeMask(1.0), "ratio is a share"),
        (lambda: TubeMask(tubelet=0), "tubelet is a whole number"),
        (lambda: TubeMask(count=0), "count is a whole number"),
        (lambda: TubeMask().grid(3, 32, 32), "tokens of 2x16x16 don't divide a clip of 3x32x32"),
        (lambda: TubeMask().grid(4, 32, 30), "don't divide"),
        (lambda: TemporalCrop(4, stride=0), "stride is a whole number"),
        (lambda: Pipeline((TemporalCrop(2),), per_frame=True), "comes first"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()
