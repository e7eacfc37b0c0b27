"""Labels made wrong: how many, of which classes, evenly, always the same, and never lost on the way."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.label_noise import mislabelled
from selftaught.data.selection import select
from selftaught.errors import UserError


def test_share_classes_and_evenness() -> None:
    clean = open_source("digits", split="all")
    assert clean.labels is not None
    noisy = mislabelled(clean, "0.6:0,1")
    assert noisy.labels is not None
    wrong = noisy.labels != clean.labels
    per_class = np.array([wrong[clean.labels == k].mean() for k in range(10)])
    assert per_class[:2] == pytest.approx(0.6, abs=0.01)
    assert not per_class[2:].any()
    assert np.array_equal(noisy.values["mislabelled"], wrong)
    spread = np.bincount(mislabelled(clean, "0.9").labels[clean.labels == 3], minlength=10)  # type: ignore[index]
    assert np.delete(spread, 3).min() > 5


def test_a_smaller_share_is_part_of_a_larger_one_and_seeds_differ() -> None:
    clean = open_source("digits", split="all")
    few, many, other = (mislabelled(clean, share, seed) for share, seed in (("0.1", 0), ("0.4", 0), ("0.1", 1)))
    assert (few.values["mislabelled"] <= many.values["mislabelled"]).all()
    assert np.array_equal(few.labels, mislabelled(clean, "0.1").labels)  # type: ignore[arg-type]
    assert not np.array_equal(few.labels, other.labels)  # type: ignore[arg-type]


def test_as_an_option_of_a_source_only_training_labels_are_wrong() -> None:
    train, test = (open_source("digits?wrong_labels=0.3", split=split) for split in ("train", "test"))
    clean, untouched = (open_source("digits", split=split) for split in ("train", "test"))
    assert np.array_equal(test.labels, untouched.labels)  # type: ignore[arg-type]
    assert (train.labels != clean.labels).mean() == pytest.approx(0.3, abs=0.01)
    assert "labels wrong" in train.describe()
    assert train.fingerprint() != clean.fingerprint()
    assert np.array_equal(train.read(5), clean.read(5))
    chosen = select(train, "mislabelled")
    assert (train.labels[chosen] != clean.labels[chosen]).all()  # type: ignore[index]
    assert len(chosen) == (train.labels != clean.labels).sum()


def test_wrong_labels_survive_subsets_and_reach_samples() -> None:
    noisy = open_source("digits?wrong_labels=0.5", split="train")
    assert noisy.labels is not None
    part = noisy.subset(np.arange(50)).subset(np.arange(10, 30))
    assert np.array_equal(part.labels, noisy.labels[10:30])  # type: ignore[arg-type]
    assert part.sample(3)["label"] == noisy.sample(13)["label"] == noisy.labels[13]
    assert np.array_equal(part.values["mislabelled"], noisy.values["mislabelled"][10:30])


@pytest.mark.parametrize("wrong", ["0", "1.0", "x", "0.5:12", "0.5:cat"])
def test_what_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="wrong_labels"):
        open_source(f"digits?wrong_labels={wrong}", split="train")
