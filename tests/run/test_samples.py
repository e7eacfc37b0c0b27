"""Which part of a source is judged: what can't be split is said, what is merely small is not an error."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught import UserError
from selftaught.data import open_source
from selftaught.run.samples import labelled_parts
from selftaught.run_settings import Settings


def images(labels: list[int]) -> dict[str, object]:
    return {"x": np.zeros((len(labels), 8, 8), np.uint8), "y": labels}


@pytest.mark.parametrize(
    ("by", "said"), [("ration:0.2", "none of auto"), ("list:/nowhere.txt", "no such readable"), ("group", "no groups")]
)
def test_a_wrong_way_to_split_is_never_passed_over(by, said):
    with pytest.raises(UserError, match=said):
        labelled_parts(images([0, 1] * 5), "image", Settings(by=by))


def test_too_few_samples_are_no_error():
    assert labelled_parts(images([0]), "image", Settings()) is None
    train, test = labelled_parts(images([0, 1] * 5), "image", Settings())
    assert (len(train), len(test)) == (8, 2)


def test_samples_without_label_are_not_judged():
    train, test = labelled_parts(open_source(images([0, 1, -1] * 5), split="all"), "image", Settings())
    assert set(train.labels) == set(test.labels) == {0, 1}
    assert len(train) + len(test) == 10
