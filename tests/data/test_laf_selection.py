"""Samples by class, list or folder: what is meant is found, and what can't be meant is said in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selftaught.data.selection import rest, select
from selftaught.data.source import Source
from selftaught.errors import UserError


def source(names: list[str] | None = None, labels: bool = True) -> Source:
    found = Source()
    found.name = "pets/"
    found.names = names or [f"{kind}/{i:03d}.jpg" for kind in ("cat", "dog", "fox") for i in range(10)]
    if labels:
        found.labels = np.repeat([0, 1, 2], len(found.names) // 3)
        found.classes = ["cat", "dog", "fox"]
    return found


def test_classes_by_name_index_and_several() -> None:
    assert select(source(), "class=dog").tolist() == list(range(10, 20))
    assert select(source(), "class=2").tolist() == list(range(20, 30))
    assert select(source(), "class=cat,2").tolist() == [*range(10), *range(20, 30)]


def test_a_class_whose_name_is_a_number_is_meant_by_name() -> None:
    digits = source()
    digits.classes = ["2", "1", "0"]
    assert select(digits, "class=2").tolist() == list(range(10))


def test_a_class_whose_name_has_a_comma_or_colon() -> None:
    odd = source()
    odd.classes = ["cat, big", "dog:0.5", "fox"]
    assert select(odd, "class=cat, big").tolist() == list(range(10))
    assert select(odd, "class=dog:0.5").tolist() == list(range(10, 20))


def test_a_share_of_each_class_is_the_same_at_every_call() -> None:
    found = select(source(), "class=cat,dog:0.4")
    assert np.bincount(source().labels[found], minlength=3).tolist() == [4, 4, 0]
    assert np.array_equal(found, select(source(), "class=cat,dog:0.4"))
    assert len(select(source(), "random:0.5")) == 15


def test_lists_of_names(tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    file.write_text("dog/003.jpg\n\n  cat/001.jpg \ndog/003.jpg\n")
    assert select(source(), file).tolist() == [1, 13]


def test_a_name_may_be_the_end_of_a_path_that_only_one_sample_has(tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    one = source(["2020/a.jpg", "2021/a.jpg", "2021/b.jpg"])
    file.write_text("b.jpg")
    assert select(one, file).tolist() == [2]
    file.write_text("a.jpg")
    with pytest.raises(UserError, match="fits several"):
        select(one, file)


def test_a_folder_of_copies_and_a_folder_of_the_source_itself(tmp_path: Path) -> None:
    for name in ("dog/003.jpg", "dog/004.jpg", ".hidden/x", "fox/.DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert select(source(), tmp_path).tolist() == [13, 14]
    assert select(source(), str(tmp_path / "dog")).tolist() == [13, 14]


def test_test_samples_are_passed_over_but_not_mistaken_for_training_samples(tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    whole = source(["a/1.jpg", "b/1.jpg", "c/2.jpg", "a/2.jpg", "b/2.jpg", "c/3.jpg"])
    train = whole.subset(np.arange(3))
    for listed in ("a/1.jpg\na/2.jpg", "a/1.jpg\n3.jpg"):
        file.write_text(listed)
        assert select(train, file).tolist() == [0]
    file.write_text("2.jpg")
    with pytest.raises(UserError, match="fits several"):
        select(train, file)
    file.write_text("a/2.jpg")
    with pytest.raises(UserError, match="no sample"):
        select(train, file)
    file.write_text("c/2.jpg")
    assert select(train.subset(np.array([2, 0])), file).tolist() == [0]


def test_positions_and_the_rest() -> None:
    found = select(source(), np.array([5, 3, 5]))
    assert found.tolist() == [3, 5]
    assert np.array_equal(np.sort(np.concatenate([found, rest(source(), found)])), np.arange(30))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("class=dgo", "did you mean dog"),
        ("class=7", "no such class; it has cat, dog, fox"),
        ("class=cat,dog,fox", "every sample"),
        ("class=cat:2", "share"),
        ("random:x", "share"),
        ("nowhere.txt", "no such file or folder"),
        ([1.5], "whole numbers"),
        ([40], "0 .. 29"),
        ([], "no sample"),
    ],
)
def test_what_cannot_be_meant_is_refused(spec: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        select(source(), spec)  # type: ignore[arg-type]


def test_an_unknown_name_and_missing_classes_are_named(tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("cow/001.jpg")
    with pytest.raises(UserError, match=r"'cow/001.jpg' is no sample of pets/; its names look like 'cat/000.jpg'"):
        select(source(), tmp_path / "out.txt")
    with pytest.raises(UserError, match="has no classes"):
        select(source(labels=False), "class=cat")
