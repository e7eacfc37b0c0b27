"""Every operation on every kind of field: one set of parameters, the same pixels and facts from both executors."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import Pipeline, executor
from selftaught.views.clips.temporal import TemporalCrop
from selftaught.views.operation import OPS, Op, below, find_executor
from selftaught.views.pipeline import _known
from tests.views.every_op import INSTANCES, batched, by_both, sample_of

KINDS = ("image", "mask", "depth", "clip", "volume")


def takes(op: Op, kind: str, dtype: type) -> bool:
    """Whether an operation says that it can be done to samples of this kind and dtype."""
    own = find_executor(type(op), kind, device=False) is not None
    image = find_executor(type(op), "image", device=False) is not None
    reaches = own or kind in op.skips or (image and (kind in ("clip", "volume") or op.any_dtype))
    return reaches and (dtype == np.uint8 or op.floats or op.takes_any(kind))


def test_every_operation_of_the_room_is_tried_here() -> None:
    ours = {name for name in _known() if OPS[name].__module__.startswith("selftaught.")}
    assert ours == {type(op).__name__ for op in INSTANCES}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32], ids=["uint8", "float32"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", INSTANCES, ids=repr)
def test_both_executors_make_the_same_pixels_and_facts(op: Op, kind: str, dtype: type) -> None:
    if not takes(op, kind, dtype):
        with pytest.raises(UserError, match=type(op).__name__):
            by_both(op, kind, dtype, n=1)
        return
    one, many, alone, together = by_both(op, kind, dtype)
    assert one.dtype == many.dtype == dtype
    assert one.shape == many.shape
    exact = op.any_dtype or kind in ("mask", "depth")
    limit = 0 if exact else 2 if dtype == np.uint8 else 1e-5 * max(1, np.abs(one).max())
    assert np.abs(one.astype(np.float64) - many).max() <= limit
    assert alone.keys() == together.keys() == set(op.facts)
    for name, fact in alone.items():
        np.testing.assert_allclose(fact, together[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("op", INSTANCES, ids=repr)
def test_the_shape_that_is_drawn_for_is_the_shape_that_comes_out(op: Op) -> None:
    for kind in KINDS:
        if takes(op, kind, np.uint8):
            sample, pipeline = sample_of(kind, np.uint8), Pipeline((op,))
            params, shape = pipeline.sample_shape(np.random.default_rng(0), sample.shape, kind)
            assert views.render(sample, pipeline, params, kind=kind).shape == shape


def test_a_clip_is_its_frames_under_one_draw() -> None:
    clip, pipeline = sample_of("clip", np.uint8), views.simclr(24)[0]
    params, _ = pipeline.sample_shape(np.random.default_rng(3), clip.shape, "clip")
    whole = views.render(clip, pipeline, params, kind="clip")
    for frame, image in zip(whole, clip, strict=True):
        np.testing.assert_array_equal(frame, views.render(image, pipeline, params))


def test_per_frame_draws_each_frame_anew() -> None:
    pipeline = dataclasses.replace(views.simclr(24)[0], per_frame=True)
    one, many, _, _ = by_both(pipeline, "clip", np.uint8, n=6)
    assert np.abs(one.astype(int) - many).max() <= 2
    clip = np.stack([sample_of("image", np.uint8)] * 4)
    params, shape = pipeline.sample_shape(np.random.default_rng(0), clip.shape, "clip")
    assert params.shape == (4, len(pipeline.columns))
    assert shape == (4, 24, 24, 3)
    made = views.render(clip, pipeline, params, kind="clip")
    assert not np.array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[2], views.render(clip[2], pipeline, params[2]))
    with pytest.raises(UserError, match="parameters have shape"):
        views.render(clip, pipeline, params[0], kind="clip")
    assert Pipeline.from_dict(pipeline.to_dict()) == pipeline


def test_masks_keep_their_values_and_skip_colour() -> None:
    mask = np.where(sample_of("mask", np.uint8) > 100, 7, 300).astype(np.int64)
    pipeline = Pipeline((*views.simclr(29)[0].ops, views.Resize(33)))
    for seed in range(5):
        params, _ = pipeline.sample_shape(np.random.default_rng(seed), mask.shape, "mask")
        view = views.render(mask, pipeline, params, kind="mask")
        assert view.dtype == np.int64
        assert set(np.unique(view)) <= {7, 300}
        many = views.render_batch(torch.from_numpy(mask)[None], pipeline, params[None], kind="mask")
        np.testing.assert_array_equal(many[0].numpy(), view)


def test_nearest_takes_the_pixel_under_each_centre() -> None:
    pipeline = Pipeline((views.Resize((2, 3)),))
    mask = np.arange(24).reshape(4, 6)
    params = pipeline.sample(np.random.default_rng(0), 4, 6)
    np.testing.assert_array_equal(views.render(mask, pipeline, params, kind="mask"), [[7, 9, 11], [19, 21, 23]])


def test_floats_are_resized_like_grey_levels_without_rounding() -> None:
    image = sample_of("image", np.uint8)
    for op in (views.Resize((17, 90)), views.RandomResizedCrop(24)):
        pipeline = Pipeline((op,))
        params = pipeline.sample(np.random.default_rng(1), *image.shape[:2])
        levels = views.render(image, pipeline, params).astype(float)
        floats = views.render((image / 255).astype(np.float32), pipeline, params) * 255
        assert np.abs(levels - floats).max() < 2
        assert np.abs(levels - floats).mean() < 0.4
        constant = views.render(np.full((40, 40, 2), 1.7), pipeline, params)
        np.testing.assert_allclose(constant, 1.7, rtol=1e-6)


@dataclasses.dataclass(frozen=True, repr=False)
class Shade(Op):
    """A user's operation: darker by a drawn factor, which it tells."""

    p: float = 0.5

    columns: ClassVar = ("apply", "factor")
    draws: ClassVar = 2
    facts: ClassVar = ("factor",)
    floats: ClassVar = True

    def draw(self, u: Any, height: Any, width: Any):
        return (below(u[0], self.p), u[1]), height, width


@executor(Shade, "image")
def _shade(x, op, values):
    factor = values[1] if values[0] else 1.0
    return (x * factor).astype(x.dtype), {"factor": np.float32(factor)}


@executor(Shade, "image", device=True)
def _shade_batch(x, op, values):
    factor = torch.from_numpy(np.where(values[:, 0] > 0, values[:, 1], 1.0))
    return (x * factor[:, None, None, None]).to(x.dtype), {"factor": factor.float()}


class Darker(Shade):
    """Inherits both executors."""


def test_an_operation_of_one_s_own_is_one_class_and_two_functions() -> None:
    for op in (Shade(), Darker(1.0)):
        for kind in ("image", "clip"):
            one, many, alone, together = by_both(op, kind, np.float32)
            np.testing.assert_allclose(one, many, rtol=1e-6)
            np.testing.assert_allclose(alone["factor"], together["factor"], rtol=1e-6)
            assert alone["factor"].shape == (6,)
    rows = by_both(Pipeline((Shade(),), per_frame=True), "clip", np.float32)
    assert rows[2]["factor"].shape == rows[3]["factor"].shape == (6, 5)
    assert Pipeline.from_dict({"ops": [{"op": "Shade", "p": 0.25}]}).ops == (Shade(0.25),)
    with pytest.raises(UserError, match="Shade: can't be done to a field of kind 'mask'"):
        by_both(Shade(), "mask", np.float32)
    with pytest.raises(UserError, match=r"Shade: .*has one of this name"):
        type("Shade", (Op,), {"__module__": "elsewhere"})


def test_telling_an_unnamed_fact_is_a_bug() -> None:
    class Silent(Shade):
        facts: ClassVar = ()

    with pytest.raises(TypeError, match="Silent reported 'factor'"):
        by_both(Silent(), "image", np.float32)


def test_pipelines_travel_to_other_processes_after_use() -> None:
    pipeline = Pipeline((TemporalCrop(2), *views.simclr(16)[0].ops))
    clip = sample_of("clip", np.uint8)
    params, _ = pipeline.sample_shape(np.random.default_rng(0), clip.shape, "clip")
    first = views.render(clip, pipeline, params, kind="clip")
    copy = pickle.loads(pickle.dumps(pipeline))
    assert copy == pipeline
    np.testing.assert_array_equal(views.render(clip, copy, params, kind="clip"), first)


def test_kinds_without_pixels_and_wrong_layouts_are_refused() -> None:
    image, pipeline = sample_of("image", np.uint8), views.plain(16)[0]
    params = pipeline.sample(np.random.default_rng(0), 40, 40)
    with pytest.raises(UserError, match="kind 'text'"):
        views.render(image, pipeline, params, kind="text")
    with pytest.raises(UserError, match="kind 'text'"):
        views.render_batch(torch.zeros(1, 3, 40, 40), pipeline, params[None], kind="text")
    with pytest.raises(UserError, match="a mask is"):
        views.render(image, pipeline, params, kind="mask")
    with pytest.raises(UserError, match=r"clips are \(N, C, T, H, W\)"):
        views.render_batch(torch.zeros(1, 3, 40, 40), pipeline, params[None], kind="clip")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("op", INSTANCES, ids=repr)
def test_a_gpu_makes_the_pixels_of_the_cpu(op: Op) -> None:
    for kind in KINDS:
        for dtype in (np.uint8, np.float32):
            if not takes(op, kind, dtype):
                continue
            samples, pipeline = [sample_of(kind, dtype, which) for which in range(6)], Pipeline((op,))
            rng = np.random.default_rng(0)
            params = np.stack([pipeline.sample_shape(rng, sample.shape, kind)[0] for sample in samples])
            here, there = ({}, {})
            batch = batched(samples, kind)
            one = views.render_batch(batch, pipeline, params, kind=kind, facts=here).double()
            many = views.render_batch(batch.cuda(), pipeline, params, kind=kind, facts=there).cpu().double()
            limit = 2 if dtype == np.uint8 else 1e-4 * max(1, float(one.abs().max()))
            assert (one - many).abs().max() <= limit, (kind, dtype)
            for name, fact in here.items():
                np.testing.assert_allclose(fact, there[name].cpu(), atol=1e-5)
