"""Fairness measures on hand-made features and scores whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.evaluation import LABEL_SETS, attribute_retrieval, buckets, hit_rate, label_association
from selftaught.evaluation.groups import by_group, cross, gap, small_groups


def two_groups(rng, n: int = 400) -> tuple[np.ndarray, list[str], list[str]]:
    """Faces of group A whose gender can be told perfectly, and of group B in whom it can't be told at all."""
    gender = rng.integers(0, 2, 2 * n)
    group = np.repeat(["A", "B"], n)
    x = 0.05 * rng.standard_normal((2 * n, 6))
    x[:n, 0] += np.where(gender[:n] == 1, 1, -1)
    x[n:, 2:] += rng.standard_normal((n, 4))
    return x, [("female", "male")[g] for g in gender], group.tolist()


def test_perfect_separation_in_one_group_and_chance_in_the_other(rng) -> None:
    x, gender, group = two_groups(rng)
    result = attribute_retrieval(x, gender, groups={"skin": group}, ks=(1, 5, 10))
    for k in (1, 5, 10):
        assert result[f"precision@{k}: skin A"].mean == 1.0
        assert result[f"precision@{k}: skin B"].mean == pytest.approx(0.5, abs=0.06)
        assert result[f"precision@{k}: skin gap"].mean == pytest.approx(0.5, abs=0.06)
        assert result[f"precision@{k}"].mean == pytest.approx(0.75, abs=0.03)
        low, high = result[f"precision@{k}: skin gap"].low, result[f"precision@{k}: skin gap"].high
        assert 0.35 < low < result[f"precision@{k}: skin gap"].mean < high < 0.65


def test_precision_by_hand_with_and_without_a_database_of_its_own() -> None:
    """On a circle at 0, 10, 25, 60 degrees with genders f, m, f, m."""
    x = np.array([[np.cos(t), np.sin(t)] for t in np.radians([0.0, 10, 25, 60])])
    gender = ["f", "m", "f", "m"]
    alone = attribute_retrieval(x, gender, ks=(1, 2, 50))
    assert alone["precision@1"].mean == 0  # neighbours: m, f, m, f
    assert alone["precision@2"].mean == pytest.approx((0.5 + 0 + 0.5 + 0.5) / 4)
    assert "k 50 clipped to 3" in alone.note
    apart = attribute_retrieval(x, gender, x, gender, ks=(1,))
    assert apart["precision@1"].mean == 1  # nothing is left out where queries and database are two sets
    other = attribute_retrieval(x[:2], gender[:2], x[2:], gender[2:], ks=(2,))
    assert other["precision@2"].mean == 0.5


def test_hit_rate_by_income_and_region() -> None:
    classes = ["stove", "hob, cooker", "sofa", "bed", "lamp", "cup", "door"]
    likely = np.array([[7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7.0]])
    allowed = [("stove", "hob"), ("stove", "hob"), ("door",), ("Hob", "unknown")]
    groups = {"income": ["high", "low", "low", "high"], "region": ["Asia", "Asia", "Africa", "Africa"]}
    result = hit_rate(likely, classes, allowed, groups)
    # images 0 (stove first), 1 (hob is sixth: no), 2 (door is seventh: no), 3 (hob is sixth: no)
    assert result["hit_rate"].mean == 0.25
    assert result["hit_rate: income high"].mean == 0.5
    assert result["hit_rate: income low"].mean == 0.0
    assert result["hit_rate: income gap"].mean == 0.5
    assert result["hit_rate: region gap"].mean == 0.5
    assert result["hit_rate: income × region high × Asia"].mean == 1.0
    assert "fewer than 10 images in income high (2), income low (2)" in result.note
    wider = hit_rate(likely, classes, allowed, groups, top=6)
    assert wider["hit_rate"].mean == 0.75


def test_images_whose_labels_are_unknown_are_left_out() -> None:
    result = hit_rate(np.eye(3), ["a", "b", "c"], [("a",), ("zebra",), ("c",)], {"region": ["x", "x", "y"]}, top=1)
    assert result["hit_rate"].mean == 1
    assert "1 image with no label" in result.note
    with pytest.raises(UserError, match="none of them is a class"):
        hit_rate(np.eye(2), ["a", "b"], [("x",), ("y",)], {})


def log_probabilities(*rows: dict[int, float], classes: int) -> np.ndarray:
    """Logits whose softmax gives these shares, the rest spread evenly."""
    out = []
    for row in rows:
        rest = (1 - sum(row.values())) / (classes - len(row))
        out.append([np.log(row.get(k, rest)) for k in range(classes)])
    return np.array(out)


def test_label_association_by_hand() -> None:
    classes = ["person", "gorilla, Gorilla gorilla", "prison, prison house", "wig", "chair", "table", "cup", "door"]
    logits = log_probabilities({0: 0.6, 1: 0.2}, {1: 0.5, 2: 0.3}, {0: 0.9, 1: 0.05}, {4: 0.5, 0: 0.3}, classes=8)
    groups = {"gender": ["f", "f", "m", "m"]}
    result = label_association(logits, classes, groups, threshold=0.1)
    assert result["human"].mean == 0.75
    assert result["human: gender f"].mean == 0.5
    assert result["human: gender m"].mean == 1.0
    assert result["non-human: gender f"].mean == 1.0
    assert result["non-human: gender m"].mean == 0.0  # 0.05 is below the threshold
    assert result["non-human: gender gap"].mean == 1.0
    assert result["crime: gender gap"].mean == 0.5
    assert result["possibly-human"].mean == 0.0
    better = result.figures["better"]
    assert (better["human"], better["crime"], better["human: gender gap"]) == ("high", "low", "low")
    loose = label_association(logits, classes, groups, threshold=0.04)
    assert loose["non-human: gender m"].mean == 0.5
    strict = label_association(logits, classes, groups, threshold=0.1, top=1)
    assert strict["non-human: gender f"].mean == 0.5


def test_own_sets_and_sets_without_a_class() -> None:
    logits = np.eye(3) * 5
    result = label_association(
        logits, ["cat", "dog", "cell"], {"skin": ["1", "2", "2"]}, sets={"animal": ["cat", "dog"], "jail": ["x"]}
    )
    assert result["animal"].mean == pytest.approx(2 / 3)
    assert "no class of jail" in result.note
    assert result.figures["better"]["animal"] == "none"
    with pytest.raises(UserError, match="none of their names is a class"):
        label_association(logits, ["i", "ii", "iii"], {"skin": ["1", "2", "2"]})
    with pytest.raises(UserError, match="from 0 to 1"):
        label_association(logits, ["person", "b", "c"], {"skin": ["1", "2", "2"]}, threshold=2)
    with pytest.raises(UserError, match="2 names for 3 columns"):
        label_association(logits, ["person", "b"], {"skin": ["1", "2", "2"]})


def test_the_default_sets_name_classes_of_imagenet() -> None:
    from timm.data import ImageNetInfo

    from selftaught.evaluation.restricted import matching

    known = {words.split(",")[0].lower() for words in ImageNetInfo("imagenet-22k").label_descriptions()}
    for names in LABEL_SETS.values():
        assert {name.lower() for name in names} <= known
    small = ImageNetInfo("imagenet-1k").label_descriptions()
    assert {s: len(matching(small, names)) > 0 for s, names in LABEL_SETS.items()} == dict.fromkeys(LABEL_SETS, True)
    animals = {small[k].split(",")[0] for k in matching(small, LABEL_SETS["non-human"])}
    assert {"gorilla", "chimpanzee", "orangutan", "baboon", "hog", "slug"} <= animals
    assert [small[k] for k in matching(small, LABEL_SETS["crime"])] == ["prison, prison house"]


# ---- groups ------------------------------------------------------------------------------------------------------
def test_gap_has_its_groups_means_and_an_interval(rng) -> None:
    low, high = rng.random(300) < 0.2, rng.random(300) < 0.7
    found = gap([low, high, rng.random(300) < 0.5])
    assert found.mean == pytest.approx(high.mean() - low.mean())
    assert found.low < found.mean < found.high
    assert found.high - found.low < 0.2
    sure = gap([np.ones(20), np.zeros(20)])
    assert (sure.mean, sure.high) == (1, 1)
    assert 0.7 < sure.low < 0.9  # 20 of 20 is no certainty
    none = gap([np.ones(20), np.ones(20)])
    assert (none.mean, none.low) == (0, 0)
    assert 0.1 < none.high < 0.25
    assert gap([np.ones(1), np.zeros(1)]).low is None
    assert gap([np.array([0.25, 0.75]), np.array([0.1, 0.1])]).mean == pytest.approx(0.4)
    with pytest.raises(UserError, match="none"):
        gap([])


def test_groups_are_crossed_and_unknown_ones_left_out() -> None:
    groups = {"gender": ["f", "f", "m", ""], "skin": ["1", "2", "2", "2"]}
    crossed = cross(groups, 4)["gender × skin"]
    assert crossed.tolist() == ["f × 1", "f × 2", "m × 2", ""]
    numbers = by_group([1, 0, 1, 0], groups, "right")
    assert numbers["right: gender f"].mean == 0.5
    assert numbers["right: skin 2"].mean == pytest.approx(1 / 3)
    assert numbers["right: gender × skin gap"].mean == 1
    assert not any(key.endswith("gender ") for key in numbers)
    assert by_group([1.0], {}, "right") == {}
    assert list(by_group([1, 0], {"skin": ["1", "1"]}, "right")) == ["right: skin 1"]
    assert small_groups({"skin": ["1"] * 10}, 10) == ""
    with pytest.raises(UserError, match="2 values of skin for 3"):
        cross({"skin": ["1", "2"]}, 3)
    with pytest.raises(UserError, match="known of no image"):
        cross({"skin": ["", ""]}, 2)


def test_buckets_of_ages_and_incomes() -> None:
    found = buckets(["17", "18", "29.5", "30", "70", ""], (18, 30, 45, 70))
    assert found == ["< 18", "18-30", "18-30", "30-45", "70+", ""]
    assert buckets([150, 200, 2000], (200, 2000), ("low", "medium", "high")) == ["low", "medium", "high"]
    assert buckets(["low", "high"], (200, 2000)) == ["low", "high"]
    with pytest.raises(UserError, match="ascending"):
        buckets([1], (2, 1))
    with pytest.raises(UserError, match="1 for 2 buckets"):
        buckets([1], (2,), ("low",))


def test_wrong_input_is_one_line() -> None:
    x = np.eye(3)
    with pytest.raises(UserError, match="together"):
        attribute_retrieval(x, ["a"] * 3, x)
    with pytest.raises(UserError, match="2 and 2 for 3"):
        attribute_retrieval(x, ["a"] * 2)
    with pytest.raises(UserError, match="at least 1"):
        attribute_retrieval(x, ["a"] * 3, ks=(0,))
    with pytest.raises(UserError, match="labels of 1 pictures"):
        hit_rate(x, ["a", "b", "c"], [("a",)], {})
