"""En-Co-Training: what windows are described by, what unlabelled samples bring, and the vote."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from selftaught.errors import UserError
from selftaught.evaluation.co_training import en_co_training, window_features
from selftaught.evaluation.front_frozen import activity_scores


def test_windows_are_described_by_mean_energy_entropy_and_correlation() -> None:
    t = np.arange(64) / 64
    one = 3 + np.sin(2 * np.pi * 4 * t)
    two = np.sin(2 * np.pi * 4 * t) + np.sin(2 * np.pi * 9 * t)
    still = np.full(64, 5.0)
    x = np.stack([one, two, still])[None]
    mean, energy, entropy, related = np.split(window_features(x)[0], [3, 6, 9])
    assert mean == pytest.approx([3, 0, 5])
    assert energy == pytest.approx([16, 32, 0], abs=1e-9)  # (T / 2)^2 / T of every sine
    assert entropy == pytest.approx([0, np.log(2), 0], abs=1e-6)
    assert related == pytest.approx([np.corrcoef(one, two)[0, 1], 0, 0], abs=1e-9)
    with pytest.raises(UserError, match="windows are"):
        window_features(x[0])


def _learners(x: np.ndarray, y: np.ndarray) -> list:
    return [
        DecisionTreeClassifier(random_state=0).fit(x, y), GaussianNB().fit(x, y), KNeighborsClassifier(3).fit(x, y)
    ]  # fmt: skip


def test_a_round_takes_those_on_which_all_three_agree_and_two_of_three_decide() -> None:
    rng = np.random.default_rng(0)
    y = np.tile([0, 1, 2], 60)
    x = np.stack([y + rng.normal(0, 0.9, 180), (y == 1) + rng.normal(0, 0.6, 180)], axis=1)
    x = (x - x[:120].mean(0)) / x[:120].std(0)
    labelled, rest, test = slice(0, 12), slice(12, 120), slice(120, 180)
    told = np.stack([learner.predict(x[rest]) for learner in _learners(x[labelled], y[labelled])])
    agreed = [k for k in range(told.shape[1]) if len(set(told[:, k])) == 1]
    assert 20 < len(agreed) < 100
    learners = _learners(np.concatenate([x[labelled], x[rest][agreed]]), np.concatenate([y[labelled], told[0, agreed]]))
    expected = []
    for votes in zip(*(learner.predict(x[test]) for learner in learners), strict=True):
        most = [vote for vote in votes if votes.count(vote) > 1]
        expected.append(most[0] if most else votes[1])
    found = en_co_training(x[labelled], y[labelled], x[rest], x[test], rounds=1, pool=200)
    assert found.tolist() == expected
    alone = en_co_training(x[labelled], y[labelled], x[:0], x[test])
    assert (alone != found).any()


def test_few_at_a_time_until_none_is_left() -> None:
    x, y = np.array([[0.0], [1.0], [10.0], [11.0]]), np.array([3, 3, 7, 7])
    rest = np.concatenate([np.linspace(0, 1, 20), np.linspace(10, 11, 20)])[:, None]
    assert en_co_training(x, y, rest, np.array([[0.4], [10.2]]), pool=7).tolist() == [3, 7]
    with pytest.raises(UserError, match="unlabelled"):
        en_co_training(x, y, np.zeros((2, 3)), x)


def test_scores_bear_the_users_names() -> None:
    predicted, truth = np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1])
    found = activity_scores(predicted, truth, np.array([2, 2, 0, 0]), ["anna", "ben", "eve"])
    assert found["f1: user eve"] == 1
    assert found["f1: user anna"] == pytest.approx(1 / 3)
    assert "f1: user ben" not in found
    assert found["accuracy"] == 0.75
