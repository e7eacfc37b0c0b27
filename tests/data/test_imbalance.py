"""Long-tailed sources: how many samples of which class are kept, which, and that only training is uneven."""

import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.imbalance import long_tail
from selftaught.errors import UserError


def source(per_class=100, classes=10, labelled=True):
    images = np.random.default_rng(0).integers(0, 255, (per_class * classes, 4, 4), dtype=np.uint8)
    arrays = {"images": images} | ({"labels": np.arange(len(images)) % classes} if labelled else {})
    return open_source(arrays, split="all")


def counts(found):
    return np.bincount(found.labels).tolist()


def test_ratio_is_the_exponential_profile_from_the_largest_class_down():
    expected = [round(100 * 0.01 ** (c / 9)) for c in range(10)]
    assert counts(long_tail(source(), 0.01)) == expected
    assert expected[0] == 100
    assert expected[-1] == 1
    assert counts(long_tail(source(), "0.1"))[-1] == 10
    assert counts(long_tail(source(), 1.0)) == [100] * 10


def test_profiles_of_cacr_keep_shares_of_each_class_the_last_one_whole():
    assert counts(long_tail(source(), "linear")) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert counts(long_tail(source(), "exponential")) == [1, 1, 1, 1, 1, 2, 5, 14, 37, 100]


def test_a_class_that_is_small_already_keeps_what_it_has():
    whole = source()
    uneven = whole.subset(np.flatnonzero((whole.labels != 1) | (np.arange(len(whole)) < 50)))
    assert counts(long_tail(uneven, 0.5))[:3] == [100, 5, round(100 * 0.5 ** (2 / 9))]


def test_draw_is_fixed_by_the_seed_nested_and_in_order():
    small, large, other = (long_tail(source(), r, seed=s) for r, s in ((0.05, 0), (0.3, 0), (0.05, 1)))
    assert list(small.names) == list(long_tail(source(), 0.05).names)
    assert set(small.names) < set(large.names)
    assert set(small.names) != set(other.names)
    assert (np.diff(small.indices) > 0).all()
    assert small.fingerprint() != large.fingerprint()
    assert "long-tailed 0.05" in small.describe()
    assert np.array_equal(small.read(3), source().read(int(small.indices[3])))


def test_what_it_cannot_do_is_said_in_one_line():
    for value in (0, -0.1, 1.5, "steep"):
        with pytest.raises(UserError, match=r"such as 0\.01, or linear or exponential"):
            long_tail(source(), value)
    with pytest.raises(UserError, match="no labels"):
        long_tail(source(labelled=False), 0.1)
    with pytest.raises(UserError, match="one class"):
        long_tail(source(classes=1), 0.1)


def test_the_option_of_a_source_string_leaves_the_test_part_even():
    train = open_source("digits?imbalance=0.05", split="train")
    test = open_source("digits?imbalance=0.05", split="test")
    plain = open_source("digits", split="train")
    even = np.bincount(plain.labels)
    expected = [min(round(even.max() * 0.05 ** (c / 9)), even[c]) for c in range(10)]
    assert counts(train) == expected
    assert counts(test) == counts(open_source("digits", split="test"))
    assert counts(open_source("digits", split="train", imbalance=0.05)) == expected


def test_a_number_of_samples_is_drawn_first():
    found = counts(open_source("digits?n=500&imbalance=0.1", split="train"))
    assert found == [round(50 * 0.1 ** (c / 9)) for c in range(10)]
