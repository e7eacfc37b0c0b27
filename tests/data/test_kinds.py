"""Kinds of fields: what they refuse, how they stack, and that a file is all that a new kind needs."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from selftaught.data.fields import Field, wanted_fields
from selftaught.data.kinds import KINDS, Camera, Kind, kind_of
from selftaught.errors import SampleError, UserError

GOOD = {
    "image": (np.zeros((4, 5, 3), np.uint8), (2, 3, 4, 5), torch.uint8),
    "mask": (np.ones((4, 5), np.uint16), (2, 4, 5), torch.int64),
    "depth": (np.ones((4, 5, 1), np.float32), (2, 1, 4, 5), torch.float32),
    "clip": (np.zeros((6, 4, 5, 3), np.uint8), (2, 3, 6, 4, 5), torch.uint8),
    "volume": (np.zeros((6, 4, 5, 1), np.float32), (2, 1, 6, 4, 5), torch.float32),
    "series": (np.zeros((2, 9), np.float32), (2, 2, 9), torch.float32),
    "point_label": (np.zeros(7, np.int64), (14,), torch.int64),
    "value": (np.float32(0.5), (2,), torch.float32),
    "label": (3, (2,), torch.int64),
}
PIXELS, SPATIAL = {"image", "clip", "volume"}, {"image", "mask", "depth", "clip", "volume"}


def test_every_kind_is_found_by_its_name() -> None:
    assert set(KINDS) == {*GOOD, "text", "camera", "points"}
    for name, kind in KINDS.items():
        assert isinstance(kind, Kind)
        assert kind.name == name
        assert kind.plural
        assert kind.description
        assert kind.layout
        assert kind.batched
        assert (kind.pixels, kind.spatial) == (name in PIXELS, name in SPATIAL)
    with pytest.raises(UserError, match=r"no kind of data 'imgae' \(did you mean image"):
        kind_of("imgae")


@pytest.mark.parametrize("name", GOOD)
def test_samples_pass_and_stack_as_the_contract_says(name: str) -> None:
    sample, shape, dtype = GOOD[name]
    kind = kind_of(name)
    kind.check(sample, "x")
    batch = kind.stack([sample, sample])
    assert tuple(batch.shape) == shape
    assert batch.dtype == dtype


def test_stacking_keeps_the_values_where_they_belong() -> None:
    clips = [np.arange(2 * 3 * 4 * 2, dtype=np.uint8).reshape(2, 3, 4, 2) + k for k in range(2)]
    batch = kind_of("clip").stack(clips).numpy()
    assert all(
        batch[n, c, t, y, x] == clips[n][t, y, x, c]
        for n, c, t, y, x in [(0, 0, 0, 0, 0), (1, 1, 1, 2, 3), (1, 0, 1, 0, 2)]
    )


@pytest.mark.parametrize(
    ("name", "sample", "reason"),
    [
        ("image", np.zeros((4, 5), np.uint8), "2 axes where a picture has"),
        ("image", np.zeros((4, 0, 3), np.uint8), "zero size 4x0x3"),
        ("image", np.full((4, 5, 3), np.nan, np.float32), "NaN"),
        ("image", np.zeros((4, 5, 3), complex), "complex128"),
        ("image", [1, 2], "list where a picture is an array"),
        ("mask", np.zeros((4, 5), np.float32), "float32 is no type for a mask"),
        ("depth", np.full((4, 5, 1), -1, np.float32), "below zero"),
        ("depth", np.zeros((4, 5, 2), np.float32), "2 channels"),
        ("points", np.zeros((4, 2), np.float32), "2 columns"),
        ("text", " ", "empty"),
        ("text", 3, "int"),
        ("camera", np.eye(4), "ndarray"),
        ("camera", Camera(np.eye(3), np.full((4, 4), np.inf)), "pose"),
        ("camera", Camera(np.eye(3), np.ones((4, 4))), "last row"),
        ("value", np.zeros((2, 2)), "2 axes"),
        ("value", np.nan, "NaN"),
        ("label", -2, "-2"),
        ("label", 1.5, "1.5"),
    ],
)
def test_what_is_no_sample_is_refused(name: str, sample: object, reason: str) -> None:
    with pytest.raises(SampleError, match=reason):
        kind_of(name).check(sample, "x")


def test_several_sizes_make_no_batch() -> None:
    with pytest.raises(UserError, match=r"images of several sizes \(4x5 and 5x4\)"):
        kind_of("image").stack([np.zeros((4, 5, 3), np.uint8)] * 2 + [np.zeros((5, 4, 3), np.uint8)])


def test_texts_and_cameras_stack_too() -> None:
    kind_of("text").check(("a dog", "one dog"), "x")
    assert kind_of("text").stack(["a", ("b", "c")]) == ["a", ("b", "c")]
    camera = Camera(np.eye(3), np.eye(4))
    kind_of("camera").check(camera, "x")
    batch = kind_of("camera").stack([camera, camera, camera])
    assert tuple(batch.intrinsics.shape) == (3, 3, 3)
    assert tuple(batch.pose.shape) == (3, 4, 4)


def test_other_layouts_are_adopted_or_refused() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(kind_of("mask").adopt(np.repeat(grey[:, :, None], 3, 2), "x"), grey)
    with pytest.raises(SampleError, match="colour picture is no mask"):
        kind_of("mask").adopt(np.arange(36, dtype=np.uint8).reshape(3, 4, 3), "x")
    depth = kind_of("depth").adopt(grey.astype(np.uint16) * 100, "x")
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth[:, :, 0], grey * 100.0)
    assert kind_of("image").adopt(Image.fromarray(np.zeros((2, 40, 3), np.uint8)), "x").shape == (2, 40, 3)
    assert kind_of("image").adopt(torch.zeros(3, 8, 8), "x").shape == (8, 8, 3)
    assert kind_of("series").adopt([[1, 2, 3], [4, 5, 6]], "x").shape == (2, 3)


def test_channels_and_sides() -> None:
    assert kind_of("image").channels(np.zeros((4, 5, 3))) == 3
    assert kind_of("series").sides(np.zeros((2, 9))) == (9,)
    assert kind_of("clip").sides(np.zeros((6, 4, 5, 3))) == (6, 4, 5)
    assert kind_of("mask").channels(np.zeros((4, 5))) is None
    assert kind_of("text").sides("four") == (4,)
    assert kind_of("camera").sides(None) == ()
    with pytest.raises(SampleError, match="2 channels where the source has 3"):
        kind_of("series").conform(np.zeros((2, 9), np.float32), 3, "x")


def test_fields_are_plain_data() -> None:
    assert pickle.loads(pickle.dumps(Field("image", 3))) == Field("image", 3)
    with pytest.raises(UserError, match="no kind of data"):
        Field("picture")
    fields = {"image": Field("image"), "label": Field("label")}
    assert wanted_fields(fields, None, "s") == ["image", "label"]
    assert wanted_fields(fields, "label", "s") == ["label"]
    with pytest.raises(UserError, match=r"s has no field 'labels' \(did you mean label"):
        wanted_fields(fields, ["labels"], "s")
