"""What cells are trained on: unions in equal shares, shares of the labels."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.benchmark.mixture import Union, limited, training_data
from selftaught.data import open_source
from selftaught.errors import UserError


def arrays(count: int, value: int, channels: int = 1) -> dict[str, np.ndarray]:
    images = np.full((count, 9, 9, channels), value, dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return {"images": images, "labels": np.arange(count) % 2}


def test_a_union_holds_every_image_and_equal_shares() -> None:
    parts = {"a": open_source(arrays(10, 10), split="all"), "b": open_source(arrays(4, 200), split="all")}
    union = Union(parts, "both", seed=1)
    assert len(union) == 20
    assert union.labels is None
    assert union.channels == 1
    seen = [union.read(i) for i in range(20)]
    ids = [(int(image[1, 1, 0]), int(image[0, 0, 0])) for image in seen]
    assert sorted(k for value, k in ids if value == 10) == list(range(10))
    counts = np.bincount([k for value, k in ids if value == 200], minlength=4)
    assert counts.sum() == 10
    assert sorted(counts.tolist()) == [2, 2, 3, 3]
    assert union.names[0].startswith("a/")
    assert union.names[-1].startswith("b/")
    assert union.fingerprint() == Union(parts, "both", seed=1).fingerprint()
    assert union.fingerprint() != Union(parts, "both", seed=2).fingerprint()


def test_a_union_of_what_does_not_fit_is_refused() -> None:
    grey, colour = open_source(arrays(5, 1), split="all"), open_source(arrays(5, 1, 3), split="all")
    with pytest.raises(UserError, match=r"channels \(a 1, b 3\)"):
        Union({"a": grey, "b": colour}, "u")
    floats = open_source({"images": np.random.default_rng(0).random((6, 9, 9, 1)).astype(np.float32)}, split="all")
    with pytest.raises(UserError, match="8-bit"):
        Union({"a": grey, "f": floats}, "u")
    with pytest.raises(UserError, match="at least one"):
        Union({}, "u")


def test_training_data_is_the_string_itself_a_share_of_its_labels_or_a_union() -> None:
    assert training_data({"d": "digits"}, "d") == "digits"
    part = training_data({"d": "digits"}, "d", fraction=0.1, seed=3)
    train = open_source("digits", split="train", seed=3)
    assert set(part.names) < set(train.names)
    share = np.bincount(part.labels) / np.bincount(train.labels)
    assert np.allclose(share, 0.1, atol=0.005)
    larger = training_data({"d": "digits"}, "d", fraction=0.5, seed=3)
    assert set(part.names) < set(larger.names)
    assert len(open_source(part, split="train")) == len(part)  # nothing of it is kept away for testing
    union = training_data({"a": "digits?n=100", "b": "digits?n=50"}, "u")
    assert isinstance(union, Union)
    assert len(union) == 200


def test_limits_draw_the_same_samples_every_time() -> None:
    source = open_source("digits", split="all")
    assert limited(source, 0) is source
    assert limited(source, 5000) is source
    assert list(limited(source, 30).names) == list(limited(source, 30).names)
    assert len(limited(source, 30)) == 30
