"""En-Co-Training: three classifiers that teach each other with the samples on which they agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.errors import UserError

__all__ = ["en_co_training", "window_features"]


def window_features(x: np.ndarray) -> np.ndarray:
    """What Bao and Intille (Pervasive 2004) tell activities by, of windows (n, C, T): (n, 3 C + C (C - 1) / 2) float64.

    For every channel its mean, the energy of its spectrum without the mean, and that spectrum's entropy (in nats); for
    every two channels their correlation, 0 where one of them stands still.

    Raises:
        UserError: windows of another shape, or of fewer than 4 instants.
    """
    windows = np.asarray(x, dtype=np.float64)
    if windows.ndim != 3 or windows.shape[2] < 4:
        raise UserError(f"windows are (n, C, T) with 4 instants or more, got {windows.shape}")
    mean = windows.mean(2)
    power = np.abs(np.fft.rfft(windows - mean[:, :, None])[:, :, 1:]) ** 2 / windows.shape[2]
    energy = power.sum(2)
    share = power / np.maximum(energy, 1e-12)[:, :, None]
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(2)
    centred = windows - mean[:, :, None]
    length = np.sqrt((centred**2).sum(2))
    products = np.einsum("nct,ndt->ncd", centred, centred)
    related = products / np.maximum(length[:, :, None] * length[:, None, :], 1e-12)
    first, second = np.triu_indices(windows.shape[1], 1)
    return np.concatenate([mean, energy, entropy, related[:, first, second]], axis=1)


def en_co_training(
    x: np.ndarray,
    y: np.ndarray,
    unlabelled: np.ndarray,
    test: np.ndarray,
    *,
    rounds: int = 30,
    pool: int = 75,
    seed: int = 0,
) -> np.ndarray:
    """Classes (m,) of the test samples after En-Co-Training (Guan et al., RTCSA 2007), a baseline of ColloSSL.

    A decision tree, naive Bayes and the three nearest neighbours learn from the labelled samples. Of a pool drawn from
    the unlabelled ones those on which all three agree get that label and join them; the pool is filled up, and the
    three learn anew. In the end they vote; where all three differ, naive Bayes decides.

    Args:
        x: (n, D) features of the labelled samples; every feature is standardised by labelled and unlabelled ones.
        y: (n,) classes.
        unlabelled: (u, D); may be empty, which leaves the vote of three supervised classifiers.
        test: (m, D).
        rounds: how often the pool is labelled; it ends sooner where the unlabelled samples do.
        pool: samples that are looked at in a round (Blum and Mitchell's 75).
        seed: of the pool and the tree.

    Raises:
        UserError: sizes that do not fit, no labelled sample.
    """
    x, unlabelled, test = (np.asarray(part, dtype=np.float64) for part in (x, unlabelled, test))
    y = np.asarray(y).reshape(-1)
    if not len(x) or len(x) != len(y) or {x.shape[1:], unlabelled.shape[1:], test.shape[1:]} != {x.shape[1:2]}:
        raise UserError(f"features {x.shape}, labels {y.shape}, unlabelled {unlabelled.shape}, test {test.shape}")
    known = np.concatenate([x, unlabelled])
    mean, deviation = known.mean(0), known.std(0)
    x, unlabelled, test = ((part - mean) / np.maximum(deviation, 1e-9) for part in (x, unlabelled, test))
    waiting = np.random.default_rng(seed).permutation(len(unlabelled))
    looked, waiting = waiting[:pool], waiting[pool:]
    for _ in range(rounds):
        if not len(looked):
            break
        said = _said(x, y, unlabelled[looked], seed)
        agreed = (said == said[0]).all(0)
        if not agreed.any():  # the next round would see the same
            break
        x, y = np.concatenate([x, unlabelled[looked[agreed]]]), np.concatenate([y, said[0, agreed]])
        looked = looked[~agreed]
        free = pool - len(looked)
        looked, waiting = np.concatenate([looked, waiting[:free]]), waiting[free:]
    tree, bayes, near = _said(x, y, test, seed)
    return np.where(tree == near, tree, bayes)


def _said(x: np.ndarray, y: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    """Classes (3, k) by the tree, naive Bayes and the neighbours."""
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.tree import DecisionTreeClassifier

    learners: list[Any] = [
        DecisionTreeClassifier(random_state=seed), GaussianNB(), KNeighborsClassifier(min(3, len(x)))
    ]  # fmt: skip
    return np.stack([learner.fit(x, y).predict(asked) for learner in learners])
