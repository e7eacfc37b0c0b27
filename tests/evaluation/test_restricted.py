"""Logits restricted to shared classes, with one right label or several."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.evaluation import restricted
from selftaught.evaluation.restricted import matching

CLASSES = ["cat", "dog", "fox", "owl"]
LOGITS = np.array([[5, 4, 9, 0], [1, 2, 3, 9], [0, 3, 2, 1], [4, 0, 0, 5.0]])


def test_only_shared_classes_compete() -> None:
    """The other set has cats and dogs: without the restriction fox and owl win three times."""
    result = restricted(LOGITS, CLASSES, ["cat", "dog", "dog", "cat"])
    assert result["accuracy"].mean == 1.0
    assert result["accuracy_all_classes"].mean == 0.25
    assert result.figures["shared"] == ["cat", "dog"]
    assert "2 of 4 classes shared" in result.note
    whole = restricted(LOGITS, CLASSES, ["cat", "dog", "dog", "cat"], other_classes=CLASSES)
    assert whole["accuracy"].mean == whole["accuracy_all_classes"].mean == 0.25


def test_several_right_labels() -> None:
    result = restricted(LOGITS, CLASSES, [("cat", "fox"), ("dog",), (), ("owl", "cat")])
    assert result["accuracy"].mean == pytest.approx(2 / 3)  # fox is right, owl is not a dog, owl is right
    assert "1 image without a shared class" in result.note


def test_classes_that_the_classifier_lacks_are_left_out_and_names_can_be_mapped() -> None:
    truth = ["kitten", "zebra", "dog", "kitten"]
    result = restricted(LOGITS, CLASSES, truth)
    assert result["accuracy"].mean == 1  # one dog is left, and it is the only shared class
    mapped = restricted(LOGITS, CLASSES, truth, mapping={"kitten": ["cat", "fox"]})
    assert mapped["accuracy"].mean == 1.0  # fox, dog, cat
    assert mapped.figures["shared"] == ["cat", "dog", "fox"]
    assert "1 image " in mapped.note
    single = restricted(LOGITS, CLASSES, truth, mapping={"kitten": "owl"})
    assert single["accuracy"].mean == pytest.approx(2 / 3)


def test_top_five_from_eleven_classes_on(rng) -> None:
    classes = [f"c{k}" for k in range(20)]
    logits, truth = rng.standard_normal((50, 20)), rng.integers(0, 12, 50)
    result = restricted(logits, classes, [f"c{k}" for k in truth], other_classes=classes[:12])
    within = logits[:, :12]
    expected = np.mean([t in np.argsort(-row)[:5] for row, t in zip(within, truth, strict=True)])
    assert result["top5"].mean == pytest.approx(expected)
    assert result["accuracy"].mean == pytest.approx((within.argmax(1) == truth).mean())
    assert "top5" not in restricted(LOGITS, CLASSES, ["cat"] * 4).numbers


def test_names_are_matched_whole_or_by_their_first_synonym() -> None:
    classes = ["hog, pig, grunter", "Cardigan, Cardigan Welsh corgi", "cardigan", "great_ape", "pig"]
    assert matching(classes, ["hog"]).tolist() == [0]
    assert matching(classes, ["pig"]).tolist() == [4]
    assert matching(classes, ["cardigan"]).tolist() == [2]  # spelt exactly so
    assert matching(classes, ["CARDIGAN"]).tolist() == [1, 2]
    assert matching(classes, ["Great Ape"]).tolist() == [3]
    assert matching(classes, ["great-ape", "hog, pig, grunter"]).tolist() == [0, 3]
    assert matching(classes, ["zebra"]).tolist() == []


def test_wrong_input_is_one_line() -> None:
    with pytest.raises(UserError, match="has none of"):
        restricted(LOGITS, CLASSES, ["x", "y", "z", "x"])
    with pytest.raises(UserError, match="one name per"):
        restricted(LOGITS, CLASSES[:3], ["cat"] * 4)
    with pytest.raises(UserError, match="one label per row"):
        restricted(LOGITS, CLASSES, ["cat"])
