"""Out-of-distribution scores against scikit-learn and loops, the sheet's toy checks, and no leakage."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

from selftaught.errors import UserError

room = importlib.import_module("selftaught.evaluation.ood")  # the package exports the function of this name


@pytest.fixture
def sets(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training features of three classes, their labels, test features, and features of another set."""
    mixing = rng.normal(size=(6, 6))
    centres = 3 * rng.normal(size=(3, 6))
    y, test_y = np.arange(240) % 3, np.arange(120) % 3
    train = (centres[y] + rng.normal(size=(240, 6))) @ mixing
    test = (centres[test_y] + rng.normal(size=(120, 6))) @ mixing
    other = (1.5 + 2 * rng.normal(size=(90, 6))) @ mixing
    return train, y, test, other


@pytest.mark.parametrize("ties", [False, True])
def test_detection_equals_scikit_learn(rng: np.random.Generator, ties: bool) -> None:
    inside, outside = rng.normal(size=130), rng.normal(0.8, 1.3, size=70)
    if ties:
        inside, outside = np.round(inside), np.round(outside)
    found = room.detection(inside, outside, resamples=50)
    score, label = np.concatenate([inside, outside]), np.repeat([0, 1], [130, 70])
    assert found["auroc"].mean == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert found["aupr"].mean == pytest.approx(average_precision_score(label, score), abs=1e-12)
    assert found["aupr_in"].mean == pytest.approx(average_precision_score(1 - label, -score), abs=1e-12)
    fpr, tpr, _ = roc_curve(1 - label, -score, drop_intermediate=False)
    assert found["fpr95"].mean == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)
    for number in found.values():
        assert number.low is not None
        assert number.high is not None
        assert number.low <= number.mean <= number.high
    plain = room.detection(inside, outside, resamples=0)
    assert {k: v.mean for k, v in plain.items()} == pytest.approx({k: v.mean for k, v in found.items()})
    assert all(v.low is None for v in plain.values())


def test_detection_by_hand() -> None:
    found = room.detection([1.0, 2.0, 3.0, 4.0], [3.5, 5.0], resamples=0)
    assert found["auroc"].mean == pytest.approx(7 / 8)  # of the 8 pairs only (4, 3.5) is the wrong way round
    assert found["aupr"].mean == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["fpr95"].mean == pytest.approx(0.5)  # the threshold is 4, the largest inside


@pytest.mark.parametrize("shrinkage", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("conditional", [False, True])
def test_mahalanobis_equals_its_loops(sets: tuple, shrinkage: float | None, conditional: bool) -> None:
    train, y, test, _ = sets
    z, q = ((part - train.mean(0)) / train.std(0) for part in (train, test))
    labels = y if conditional else np.zeros_like(y)
    centres = {c: z[labels == c].mean(0) for c in np.unique(labels)}
    residuals = np.stack([z[i] - centres[labels[i]] for i in range(len(z))])
    cov = sum(np.outer(r, r) for r in residuals) / len(residuals)
    s = LedoitWolf(assume_centered=True).fit(residuals).shrinkage_ if shrinkage is None else shrinkage
    inverse = np.linalg.inv((1 - s) * cov + s * np.trace(cov) / len(cov) * np.eye(len(cov)))
    expected = [min(float((x - c) @ inverse @ (x - c)) for c in centres.values()) for x in q]
    score = room.mahalanobis(train, y if conditional else None, shrinkage=shrinkage)
    assert np.allclose(score(test), expected, rtol=1e-8)


def test_ledoit_wolf_equals_scikit_learn(rng: np.random.Generator) -> None:
    for n, d in ((40, 10), (15, 30), (500, 4)):
        x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
        x -= x.mean(0)
        expected = LedoitWolf(assume_centered=True).fit(x).shrinkage_
        assert room.ledoit_wolf(torch.from_numpy(x)) == pytest.approx(expected, abs=1e-10)
    assert room.ledoit_wolf(torch.zeros(5, 3, dtype=torch.float64)) == 0


def test_mahalanobis_on_gaussians_and_under_affine_maps(rng: np.random.Generator) -> None:
    near, far = rng.normal(size=(2000, 8)), rng.normal(3.0, 1.0, size=(500, 8))
    train, test, again = near[:1000], near[1000:1500], near[1500:]
    assert room.ood(train, test, far, resamples=0)["auroc"].mean > 0.99
    assert room.ood(train, test, again, resamples=0)["auroc"].mean == pytest.approx(0.5, abs=0.05)
    shifted = rng.normal(0.7, 1.0, size=(500, 8))
    matrix, offset = rng.normal(size=(8, 8)), rng.normal(size=8)
    plain = room.ood(train, test, shifted, shrinkage=0.0, resamples=0)["auroc"].mean
    moved = [part @ matrix + offset for part in (train, test, shifted)]
    assert 0.6 < plain < 0.95
    assert room.ood(*moved, shrinkage=0.0, resamples=0)["auroc"].mean == pytest.approx(plain, abs=1e-6)


def test_knn_distance_equals_scikit_learn(sets: tuple) -> None:
    train, _, test, _ = sets
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (train, test)]
    for k in (1, 7, 50):
        found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(unit[0]).kneighbors(unit[1])[0][:, -1]
        assert np.allclose(room.knn_distance(train, k=k)(test), found, atol=1e-7)
    assert np.allclose(room.knn_distance(train[:5], k=50)(test), room.knn_distance(train[:5], k=5)(test))


def test_msp_and_energy_by_hand_and_on_the_head_of_scikit_learn(sets: tuple) -> None:
    logits = np.array([[2.0, 0.0, -1.0], [0.1, 0.2, 0.3]])
    for row, low, free in zip(logits, room.msp(logits), room.energy(logits, temperature=2.0), strict=True):
        assert low == pytest.approx(-max(math.exp(v) for v in row) / sum(math.exp(v) for v in row))
        assert free == pytest.approx(-2 * math.log(sum(math.exp(v / 2) for v in row)))
    train, y, test, _ = sets
    head = room.linear_head(train, y)(test)
    mean, deviation = train.mean(0), train.std(0)
    best = min(
        np.abs(_logits(train, y, test, mean, deviation, c) - head).max() for c in 10.0 ** np.arange(-5, 3)
    )  # the strength is chosen inside; some strength of the grid must give the same head
    assert best < 1e-2 * np.abs(head).max()
    score = room.make_scorer(train, y, scorer="energy", temperature=1.5)
    assert np.allclose(score(test), room.energy(head, temperature=1.5))
    assert np.allclose(room.make_scorer(train, y, scorer="msp")(test), room.msp(head))


def _logits(train: np.ndarray, y: np.ndarray, test: np.ndarray, mean: np.ndarray, scale: np.ndarray, c: float):
    model = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit((train - mean) / scale, y)
    found = model.decision_function((test - mean) / scale)
    return found - found.mean(1, keepdims=True)


@pytest.mark.parametrize("scorer", room.SCORERS)
def test_every_scorer_tells_the_other_set_and_looks_at_the_training_set_only(sets: tuple, scorer: str) -> None:
    train, y, test, other = sets
    result = room.ood(train, test, other, train_y=y, scorer=scorer, neighbours=10)
    assert result["auroc"].mean > 0.6
    score = room.make_scorer(train, y, scorer=scorer, neighbours=10)
    assert np.allclose(score(test), np.concatenate([score(test[:1]), score(test[1:])]))
    figure = result.figures["scores"]
    assert sum(figure["inside"]) == pytest.approx(1)
    assert sum(figure["outside"]) == pytest.approx(1)
    assert len(figure["edges"]) == 31


def test_degenerate_features_and_bad_input(sets: tuple) -> None:
    train, y, test, other = sets
    constant = np.concatenate([train, np.ones((len(train), 1))], 1)
    wide = np.concatenate([test, np.full((len(test), 1), 1.0)], 1)
    assert np.isfinite(room.mahalanobis(constant, y)(wide)).all()
    assert np.isfinite(room.mahalanobis(constant, y, shrinkage=0.0)(wide)).all()
    assert np.isfinite(room.mahalanobis(np.ones((4, 3)))(np.zeros((2, 3)))).all()
    few = room.mahalanobis(train[:4])(test)  # fewer samples than dimensions
    assert np.isfinite(few).all()
    for call, said in (
        (lambda: room.ood(train, test, other, scorer="vote"), "mahalanobis, knn"),
        (lambda: room.ood(train, test, other, scorer="msp"), "train_y"),
        (lambda: room.ood(train, test, other[:, :3]), "width 3"),
        (lambda: room.mahalanobis(train, shrinkage=2.0), "shrinkage"),
        (lambda: room.knn_distance(train, k=0), "neighbours"),
        (lambda: room.energy(train, temperature=0.0), "temperature"),
        (lambda: room.linear_head(train, np.zeros(len(train))), "two classes"),
        (lambda: room.detection([], [1.0]), "at least one"),
        (lambda: room.detection([np.nan], [1.0]), "finite"),
    ):
        with pytest.raises(UserError, match=said):
            call()
