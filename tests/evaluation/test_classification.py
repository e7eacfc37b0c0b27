import numpy as np
import pytest
from sklearn import metrics

from selftaught.errors import UserError
from selftaught.evaluation import classification


@pytest.fixture
def scored(rng):
    """Scores of 200 items in 5 unequal classes that are right about half the time."""
    truth = rng.choice(5, 200, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    logits = rng.normal(size=(200, 5)) + 1.2 * np.eye(5)[truth]
    return np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True)), truth


def test_every_number_equals_scikit_learn(scored):
    scores, truth = scored
    numbers, figures = classification.judge(scores, truth, np.arange(5))
    predicted, probability = scores.argmax(1), np.exp(scores)
    expected = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
        "f1": metrics.f1_score(truth, predicted, average="macro"),
        "weighted_f1": metrics.f1_score(truth, predicted, average="weighted"),
        "kappa": metrics.cohen_kappa_score(truth, predicted),
        "auc": metrics.roc_auc_score(truth, probability, multi_class="ovr", average="macro"),
    }
    assert {name: number.mean for name, number in numbers.items()} == pytest.approx(expected)
    np.testing.assert_array_equal(figures["confusion"]["matrix"], metrics.confusion_matrix(truth, predicted))
    one_to_one = classification.judge(scores, truth, np.arange(5), auc="ovo")[0]["auc"].mean
    assert one_to_one == pytest.approx(metrics.roc_auc_score(truth, probability, multi_class="ovo", average="macro"))


def test_intervals_equal_the_bootstrap_over_items(scored):
    """The multinomial draws of the confusion matrix against the plain loop over resampled items."""
    scores, truth = scored
    numbers, _ = classification.judge(scores, truth, np.arange(5))
    rng, predicted, draws = np.random.default_rng(1), scores.argmax(1), []
    for _ in range(400):
        rows = rng.integers(0, 200, 200)
        draws.append(
            [
                metrics.cohen_kappa_score(truth[rows], predicted[rows]),
                metrics.f1_score(truth[rows], predicted[rows], average="weighted"),
            ]
        )
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    for i, name in enumerate(("kappa", "weighted_f1")):
        width = high[i] - low[i]
        assert numbers[name].low == pytest.approx(low[i], abs=0.2 * width)
        assert numbers[name].high == pytest.approx(high[i], abs=0.2 * width)


def test_interval_of_the_area_equals_the_bootstrap(scored):
    scores, truth = scored
    number = classification.auc_ovr(scores, truth)
    rng, draws = np.random.default_rng(2), []
    for _ in range(400):
        rows = rng.integers(0, 200, 200)
        draws.append(classification.auc_ovr(scores[rows], truth[rows]).mean)
    assert (number.high - number.low) / 2 == pytest.approx(1.96 * np.std(draws), rel=0.2)


def test_area_at_its_limits():
    truth = np.array([0, 0, 1, 1])
    one_hot = np.eye(2)[truth]
    assert classification.auc_ovr(one_hot, truth).mean == 1.0
    assert classification.auc_ovr(1 - one_hot, truth).mean == 0.0
    assert classification.auc_ovr(np.zeros((4, 2)), truth).mean == 0.5  # ties count half
    assert np.isnan(classification.auc_ovr(one_hot, 0 * truth).mean)


def test_top5_from_eleven_classes_on(rng):
    scores, truth = rng.normal(size=(100, 12)), rng.integers(0, 12, 100)
    expected = np.mean([truth[i] in np.argsort(-scores[i])[:5] for i in range(100)])
    assert classification.judge(scores, truth, np.arange(12))[0]["top5"].mean == pytest.approx(expected)
    assert "top5" not in classification.judge(scores[:, :10], truth % 10, np.arange(10))[0]


def test_classes_read_as_numbers(scored):
    scores, truth = scored
    beats = np.array([60.0, 70, 80, 90, 100])
    numbers, _ = classification.judge(scores, truth, np.arange(5), class_values=beats)
    a, b = beats[scores.argmax(1)], beats[truth]
    assert numbers["mae"].mean == pytest.approx(np.abs(a - b).mean())
    assert numbers["rmse"].mean == pytest.approx(np.sqrt(((a - b) ** 2).mean()))
    assert numbers["mape"].mean == pytest.approx((100 * np.abs(a - b) / b).mean())
    assert numbers["rho"].mean == pytest.approx(np.corrcoef(a, b)[0, 1])
    with pytest.raises(UserError, match="class_values"):
        classification.judge(scores, truth, np.arange(5), class_values=beats[:3])


def test_a_class_that_training_lacked():
    scores = np.array([[0.0, -1, -np.inf], [-1, 0.0, -np.inf], [0.0, -1, -np.inf]])
    numbers, figures = classification.judge(scores, np.array([0, 1, 2]), np.arange(3))
    assert numbers["accuracy"].mean == pytest.approx(2 / 3)
    assert numbers["balanced_accuracy"].mean == pytest.approx(2 / 3)
    assert numbers["auc"].mean == pytest.approx((0.75 + 1.0) / 2)  # of the two known classes
    assert figures["per_class"]["accuracy"].tolist() == [1.0, 1.0, 0.0]


def test_one_item():
    numbers, _ = classification.judge(np.array([[1.0, 0.0]]), np.array([0]), np.arange(2))
    assert numbers["accuracy"].mean == 1.0
    assert numbers["accuracy"].low is None
    assert np.isnan(numbers["kappa"].mean)


def test_a_classifier_is_judged_by_its_own_scores() -> None:
    logits = np.array([[2.0, 0, 0], [0, 1.0, 0], [0, 3.0, 0.5], [0, 0, 1.0]])
    found = classification.classify(logits, [0, 1, 2, 2])
    assert found["accuracy"].mean == 0.75
    assert found.figures["confusion"]["matrix"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    with pytest.raises(UserError, match=r"0 \.\. 2"):
        classification.classify(logits, [0, 1, 2, 3])
