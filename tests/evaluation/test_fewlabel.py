import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from selftaught.errors import UserError
from selftaught.evaluation import Number, fewlabel, linear, probe, subset

LABELS = np.repeat([0, 1, 2, 3], [1000, 300, 45, 4])


def test_ten_per_cent_is_stratified():
    rows = subset(LABELS, fraction=0.1, seed=3)
    assert np.bincount(LABELS[rows]).tolist() == [100, 30, 4, 1]  # at least one of each
    assert len(set(rows)) == len(rows)
    assert (np.diff(rows) > 0).all()


def test_subsets_are_nested_in_the_seed_and_differ_between_seeds():
    for seed in range(3):
        chain = [set(subset(LABELS, fraction=f, seed=seed)) for f in (0.01, 0.1, 0.5, 1.0)]
        assert all(small < large for small, large in pairwise(chain))
        few = [set(subset(LABELS, per_class=n, seed=seed)) for n in (1, 5, 20)]
        assert all(small < large for small, large in pairwise(few))
        assert few[0] < chain[2]  # sizes and shares are prefixes of the same order
    assert set(subset(LABELS, fraction=0.1, seed=0)) != set(subset(LABELS, fraction=0.1, seed=1))
    assert len(chain[-1]) == len(LABELS)


def test_per_class_takes_what_there_is():
    assert np.bincount(LABELS[subset(LABELS, per_class=20)]).tolist() == [20, 20, 20, 4]
    with pytest.raises(UserError, match="either"):
        subset(LABELS, per_class=1, fraction=0.5)
    with pytest.raises(UserError, match="either"):
        subset(LABELS)


def test_a_point_of_the_curve_by_hand(blobs):
    """Subset, fixed strength, standardised by all training features: one seed computed outside."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y, tx, ty = blobs
    scaler = StandardScaler().fit(x)
    expected = []
    for seed in range(3):
        rows = subset(y, per_class=1, seed=seed)
        model = LogisticRegression(C=probe.DEFAULT_STRENGTH, tol=1e-9, max_iter=9999)
        expected.append(model.fit(scaler.transform(x[rows]), y[rows]).score(scaler.transform(tx), ty))
    result = fewlabel(x, y, tx, ty, per_class=(1,), fractions=(), seeds=3)
    assert result["accuracy@1"].values == pytest.approx(expected, abs=1 / len(ty))
    assert result["accuracy@1"] == Number.of(result["accuracy@1"].values)


def test_more_labels_help_and_the_curve_holds_all(digits):
    x, y, tx, ty = digits
    result = fewlabel(x, y, tx, ty, per_class=(1, 10, 50), fractions=(0.1, 1.0), seeds=3)
    assert list(result.numbers) == ["accuracy@1", "accuracy@10", "accuracy@50", "accuracy@10%", "accuracy@100%"]
    assert result["accuracy@1"].mean + 0.1 < result["accuracy@10"].mean < result["accuracy@50"].mean
    assert result["accuracy@100%"].mean > 0.93
    assert [len(number.values) for number in result.numbers.values()] == [3, 3, 3, 3, 1]
    assert result["accuracy@100%"].low is not None
    curve = json.loads(json.dumps(result.figures["curve"], allow_nan=False))
    assert [point["n"] for point in curve["per_class"]] == [1, 10, 50]
    assert [point["labels"] for point in curve["per_class"]] == [10, 100, 500]
    assert [point["n"] for point in curve["fractions"]] == [0.1, 1.0]
    assert curve["per_class"][1]["accuracy"] == result["accuracy@10"].to_dict()
    assert curve["per_class"][1]["auc"]["mean"] > curve["per_class"][1]["balanced_accuracy"]["mean"]
    assert curve["chance"] == pytest.approx(np.bincount(ty).max() / len(ty))


def test_the_full_set_is_the_linear_protocol(blobs):
    """Same standardisation, same regression; only the folds' seed differs."""
    x, y, tx, ty = blobs
    full = fewlabel(x, y, tx, ty, per_class=(), fractions=(1.0,), seeds=2, strengths=(0.1,))
    assert full["accuracy@100%"].mean == linear(x, y, tx, ty, strengths=(0.1,))["accuracy"].mean
    largest = fewlabel(x, y, tx, ty, per_class=(40,), fractions=(), seeds=2, strengths=(0.1,))
    assert largest["accuracy@40"] == full["accuracy@100%"]


def test_shuffled_labels_are_at_chance(blobs, rng):
    x, y, tx, ty = blobs
    result = fewlabel(x, rng.permutation(y), tx, rng.permutation(ty), per_class=(5, 20), fractions=(), seeds=4)
    for number in result.numbers.values():
        assert number.mean == pytest.approx(0.1, abs=0.05)


def test_unbalanced_classes_are_noted(rng):
    y = np.repeat([0, 1, 2], [80, 20, 3])
    x = rng.normal(size=(103, 6)) + 2 * np.eye(6)[y]
    result = fewlabel(x, y, x, y, per_class=(2, 10, 100), fractions=(0.01,), seeds=2)
    assert "at 10 per class, some classes have fewer (the smallest 3)" in result.note
    assert "100 per class left out" in result.note
    assert [point["labels"] for point in result.figures["curve"]["per_class"]] == [6, 23]
    assert result.figures["curve"]["fractions"][0]["labels"] == 3


def test_same_seeds_pair_two_encoders(blobs):
    """The subsets depend on labels and seed alone, so that raw input and encoders see the same samples."""
    x, y, tx, ty = blobs
    options = {"per_class": (5,), "fractions": (), "seeds": [4, 9]}
    first = fewlabel(x, y, tx, ty, **options)
    turned = fewlabel(torch.tensor(x) @ torch.eye(16).flip(0).double(), y, tx[:, ::-1].copy(), ty, **options)
    assert first["accuracy@5"].values == pytest.approx(turned["accuracy@5"].values, abs=1e-12)
    assert first == fewlabel(x, y, tx, ty, **options)


def test_bad_options(blobs):
    x, y, tx, ty = blobs
    for options, message in (
        ({"seeds": 0}, "seeds"),
        ({"per_class": (0,)}, "per_class"),
        ({"fractions": (0.0,)}, "fractions"),
        ({"fractions": (1.5,)}, "fractions"),
        ({"per_class": (1000,), "fractions": ()}, "pass smaller"),
    ):
        with pytest.raises(UserError, match=message):
            fewlabel(x, y, tx, ty, **options)
