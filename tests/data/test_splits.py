from __future__ import annotations

import numpy as np
import pytest

from selftaught.data import open_source, require_labels, split_source, take
from selftaught.data.labelling import label_codes
from selftaught.data.source import Source, Subset, digest
from selftaught.errors import UserError


def source_of(n: int, labels=None, groups=None, given=None) -> Source:
    source = open_source(np.zeros((n, 2, 2), np.uint8), split="all")
    source.labels = None if labels is None else np.asarray(labels, dtype=np.int64)
    source.groups = None if groups is None else np.asarray(groups, dtype=np.int64)
    source.given = None if given is None else np.asarray(given, dtype=np.int8)
    return source


def both(source: Source, by: str, seed: int = 0) -> tuple[set, set]:
    train, test = (split_source(source, s, by, seed) for s in ("train", "test"))
    first, second = set(train.names), set(test.names)
    assert not first & second
    assert first | second == set(source.names)
    return first, second


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.77])
def test_ratio_is_stratified(share):
    labels = np.repeat([0, 1, 2, 3], [50, 30, 7, 2])
    source = source_of(89, labels)
    both(source, f"ratio:{share}")
    test = split_source(source, "test", f"ratio:{share}")
    wanted = [min(max(round(n * share), 1), n - 1) for n in (50, 30, 7, 2)]
    assert np.bincount(test.labels, minlength=4).tolist() == wanted


def test_ratio_depends_on_the_seed_alone():
    source = source_of(60)
    assert both(source, "ratio:0.3", 1) == both(source_of(60), "ratio:0.3", 1)
    assert both(source, "ratio:0.3", 1) != both(source, "ratio:0.3", 2)
    assert len(both(source, "ratio:0.3")[1]) == 18
    assert both(source, "ratio") == both(source, "auto") == both(source, "ratio:0.2")


def test_no_group_is_in_both():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 12, 300) * 7
    source = source_of(300, rng.integers(0, 3, 300), groups)
    for seed in range(5):
        both(source, "group", seed)
        train, test = (split_source(source, s, "auto", seed) for s in ("train", "test"))
        assert not set(train.groups) & set(test.groups)
        assert 0.1 < len(test) / 300 < 0.32


def test_groups_of_one_class_are_drawn_per_class():
    groups = np.repeat(np.arange(12), 5)
    labels = groups % 3
    test = split_source(source_of(60, labels, groups), "test", "group:0.25")
    assert np.bincount(test.labels).tolist() == [5, 5, 5]


def test_given_comes_first_then_group_then_ratio():
    given = source_of(6, None, [0, 0, 1, 1, 2, 2], [0, 2, 0, 2, 1, 1])
    assert split_source(given, "test").names == ["00001", "00003"]
    assert split_source(given, "val").names == ["00004", "00005"]
    assert split_source(given, "train").names == ["00000", "00002"]
    assert split_source(given, "all") is given


def test_list_of_test_names(tmp_path):
    source = source_of(5)
    (tmp_path / "test.txt").write_text("00003\n\n00001\n")
    assert both(source, f"list:{tmp_path}/test.txt")[1] == {"00001", "00003"}
    (tmp_path / "wrong.txt").write_text("nobody\n")
    with pytest.raises(UserError, match="'nobody' is no sample of arrays; its names look like '00000'"):
        split_source(source, "train", f"list:{tmp_path}/wrong.txt")
    with pytest.raises(UserError, match="no such readable text file"):
        split_source(source, "train", "list:/nowhere.txt")
    (tmp_path / "all.txt").write_text("\n".join(source.names))
    with pytest.raises(UserError, match="leaves nothing to train"):
        split_source(source, "train", f"list:{tmp_path}/all.txt")


@pytest.mark.parametrize(
    ("by", "split", "said"),
    [
        ("ratio:1.5", "train", "must lie between 0 and 1"),
        ("ratio:many", "train", "must lie between 0 and 1"),
        ("group", "train", "has no groups"),
        ("given", "train", "brings no split of its own"),
        ("halves", "train", "none of auto, given"),
        ("auto", "dev", "none of train, test, val, all"),
        ("auto", "val", "has no val split"),
    ],
)
def test_splits_that_cannot_be_made(by, split, said):
    with pytest.raises(UserError, match=said) as error:
        split_source(source_of(10), split, by)
    assert "\n" not in str(error.value)


def test_too_little_to_split():
    with pytest.raises(UserError, match="leaves nothing to test"):
        split_source(source_of(1), "test")
    with pytest.raises(UserError, match="single group"):
        split_source(source_of(4, None, [2, 2, 2, 2]), "test")
    with pytest.raises(UserError, match="leaves nothing to test"):
        split_source(source_of(3, [0, 1, 2]), "test")


def test_options_in_the_source_string(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 3, 3), np.uint8), y=np.arange(40) % 4)
    where = f"{tmp_path}/a.npz"
    assert len(open_source(f"{where}?by=ratio:0.5&n=8")) == 8
    assert np.bincount(open_source(f"{where}?n=8").labels).tolist() == [2, 2, 2, 2]
    assert open_source(f"{where}?seed=1").names == open_source(where, seed=1).names != open_source(where).names
    assert len(open_source(where, n=5, split="all")) == 5


def test_take_is_even_over_classes_and_keeps_the_order():
    source = source_of(100, np.repeat([0, 1], [90, 10]))
    part = take(source, 20)
    assert np.bincount(part.labels).tolist() == [10, 10]
    assert list(part.names) == sorted(part.names)
    assert take(source, 100) is source
    assert take(source, 20).names == part.names != take(source, 20, seed=1).names
    assert len(take(source_of(9), 4)) == 4
    with pytest.raises(UserError, match="n=0"):
        take(source, 0)


def test_subset_of_a_subset_points_at_the_whole():
    source = source_of(10, np.arange(10), np.arange(10) // 2)
    inner = source.subset([8, 6, 4, 2], "even").subset([3, 0])
    assert isinstance(inner, Subset)
    assert inner.parent is source
    assert inner.names == ["00002", "00008"]
    assert inner.labels.tolist() == [2, 8]
    assert inner.groups.tolist() == [1, 4]
    assert inner.fingerprint() != source.fingerprint()
    with pytest.raises(IndexError):
        source.subset([10])


def test_require_labels():
    assert require_labels(source_of(2, [0, 1])).tolist() == [0, 1]
    with pytest.raises(UserError, match="arrays has no labels; put each class in a sub-folder"):
        require_labels(source_of(2))


@pytest.mark.parametrize(
    ("values", "codes", "names"),
    [
        ([0, 2, 1, 2], [0, 2, 1, 2], ["0", "1", "2"]),
        ([1, 2, 3], [1, 2, 3], ["0", "1", "2", "3"]),
        ([-1, 1, 1], [0, 1, 1], ["-1", "1"]),
        ([100, 7, 100], [1, 0, 1], ["7", "100"]),
        (["b", "a"], [1, 0], ["a", "b"]),
        ([1.0, 0.0], [1, 0], ["0", "1"]),
    ],
)
def test_label_codes(values, codes, names):
    got, classes = label_codes(values)
    assert (got.tolist(), classes, got.dtype) == (codes, names, np.int64)


def test_digest_tells_neighbours_apart():
    assert digest("a", "b") != digest("ab", "")
    assert digest(["a", "b"]) != digest(["ab"])
    assert digest(np.zeros(2, np.int64)) != digest(np.zeros(4, np.int32))
    assert digest(None) != digest("None")
    assert len(digest()) == 32
