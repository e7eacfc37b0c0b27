"""What every source gives: fields, samples, subsets of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.fields import Field
from selftaught.errors import UserError
from tests.data.helpers import folder_of


def test_a_folder_has_an_image_and_a_label(tmp_path: Path) -> None:
    source = open_source(str(folder_of(tmp_path, ["a/1.png", "a/2.png", "b/1.png"])), split="all")
    assert source.fields == {"image": Field("image", 3), "label": Field("label")}
    assert (source.main, source.modality) == ("image", "image")
    sample = source.sample(2)
    np.testing.assert_array_equal(sample["image"], source.read(2))
    assert sample["label"] == 1
    assert list(source.sample(0, want=["label"])) == ["label"]
    with pytest.raises(UserError, match="has no field 'mask'; it has image, label"):
        source.sample(0, want=["mask"])
    with pytest.raises(UserError, match="images, which have no frames"):
        source.frames(0)


def test_only_the_wanted_fields_are_read(tmp_path: Path) -> None:
    source = open_source(str(folder_of(tmp_path, ["a/1.png", "b/1.png"])), split="all")
    (tmp_path / "a/1.png").unlink()
    assert source.sample(0, want=["label"]) == {"label": 0}


def test_series_have_fields_of_their_kind() -> None:
    source = open_source({"x": np.zeros((4, 3, 20)), "y": [0, 1, 0, 1]}, modality="series", split="all")
    assert source.fields == {"series": Field("series", 3), "label": Field("label")}
    assert source.sample(1)["series"].shape == (3, 20)
    assert source.describe() == "arrays: 4 series, 3 channels, 2 classes"


def test_values_are_fields_and_follow_a_subset() -> None:
    source = open_source(np.zeros((4, 8, 8), np.uint8), split="all")
    source.values = {"age": np.array([10, 20, 30, 40], np.float32)}
    part = source.subset([3, 1])
    assert part.fields == {"image": Field("image", 1), "age": Field("value")}
    assert part.sample(0, ["age"]) == {"age": 40}
    np.testing.assert_array_equal(part.values["age"], [40, 20])


def test_a_subset_may_have_labels_of_its_own() -> None:
    source = open_source({"x": np.zeros((3, 8, 8), np.uint8), "y": [0, 1, 2]}, split="all")
    part = source.subset([2, 0])
    assert [part.sample(i)["label"] for i in range(2)] == [2, 0]
    part.labels = np.array([1, 1])
    assert [part.sample(i)["label"] for i in range(2)] == [1, 1]
    part.labels = None
    assert list(part.fields) == list(part.sample(0)) == ["image"]
