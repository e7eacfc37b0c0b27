"""Scores that are cheap enough to watch a training by, and that never stop it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, as_labels, stratified_order
from selftaught.evaluation.linear import linear
from selftaught.evaluation.neighbours import knn, normalise, vote

__all__ = ["OnlineKNN", "monitor", "monitor_rows"]

BANK, TEST = 2000, 1000


def monitor_rows(
    train_y: Array | None, test_y: Array | None, *, bank: int = BANK, test: int = TEST, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, str]:
    """Which labelled samples to watch a training by: a bank and a test set, every class in the bank.

    Args:
        train_y: ``(n,)`` classes of the training samples, or None where there are none.
        test_y: ``(m,)`` classes of the held-out samples.
        bank: samples of the bank at most, drawn evenly over the classes as they are spread, but one of each at least.
        test: samples of the test set at most; of classes that the bank has.
        seed: of the draw.

    Returns:
        rows of the bank and of the test set, sorted; and why there is nothing to watch, "" where there is. Both are
        empty then.
    """
    none = np.zeros(0, dtype=np.int64)
    if train_y is None or test_y is None:
        return none, none, "no labels"
    labels, others = np.asarray(train_y).reshape(-1), np.asarray(test_y).reshape(-1)
    known = np.unique(labels)
    if len(known) < 2:
        return none, none, f"{len(known)} class in the training samples, two are needed"
    if len(known) > bank:
        return none, none, f"{len(known)} classes, more than the {bank} samples that are looked at"
    answerable = np.flatnonzero(np.isin(others, known))
    if not len(answerable):
        return none, none, "no held-out sample of a class that the training samples have"
    rng = np.random.default_rng(seed)
    return _spread(labels, bank, rng), answerable[_spread(others[answerable], test, rng)], ""


def _spread(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most ``count`` sorted positions, each class in its share of them, the first of every class before all else."""
    members = stratified_order(labels, rng)
    position = np.concatenate(members)
    first = np.concatenate([np.arange(len(m)) > 0 for m in members])
    place = np.concatenate([(np.arange(len(m)) + 0.5) / len(m) for m in members])
    return np.sort(position[np.lexsort((place, first))[:count]])


def monitor(
    x: Array, y: Array, test_x: Array, test_y: Array, *, by: Literal["knn", "linear"] = "knn", k: int = 20
) -> tuple[float | None, str]:
    """Accuracy of a k-NN or a linear probe, for a curve; data that it can't be measured on never raise.

    Args:
        x: ``(n, d)`` features of the bank.
        y: ``(n,)`` classes.
        test_x: ``(m, d)``.
        test_y: ``(m,)``.
        by: "knn" (default) or "linear".
        k: neighbours, default 20, clipped to the bank.

    Returns:
        the accuracy, and ""; or None, and why not in one line (a class only, NaN features).
    """
    try:
        found = knn(x, y, test_x, test_y, k=k) if by == "knn" else linear(x, y, test_x, test_y)
    except UserError as error:
        return None, str(error)
    return found["accuracy"].mean, ""


class OnlineKNN:
    """A bank of embeddings that new ones are scored against, with the votes of ``knn``.

    Args:
        bank_x: ``(n, d)`` features to start with, or ``None``.
        bank_y: ``(n,)`` their classes.
        k: neighbours, default 20, clipped to the bank.
        temperature: of the votes, default 0.1.
        capacity: how many of the newest samples are kept; all if ``None``.

    Raises:
        UserError: features without labels, or as ``knn``.
    """

    def __init__(
        self,
        bank_x: Array | None = None,
        bank_y: Array | None = None,
        *,
        k: int = 20,
        temperature: float = 0.1,
        capacity: int | None = None,
    ) -> None:
        if (bank_x is None) != (bank_y is None):
            raise UserError("bank: pass bank_x and bank_y together, or neither")
        if capacity is not None and capacity < 1:
            raise UserError(f"capacity: {capacity}; keep at least one sample, or None for all")
        self.k, self.temperature, self.capacity = k, temperature, capacity
        self._x: list[Tensor] = []
        self._y: list[np.ndarray] = []
        if bank_x is not None and bank_y is not None:
            self.update(bank_x, bank_y)

    def __len__(self) -> int:
        return sum(map(len, self._x))

    def update(self, x: Array, y: Array) -> OnlineKNN:
        """Add ``(n, d)`` features and ``(n,)`` classes; the oldest leave when the bank is full. Returns itself."""
        features = normalise(as_features(x, "bank features"))
        labels = as_labels(y, len(features), "bank labels")
        if self._x and self._x[0].shape[1] != features.shape[1]:
            raise UserError(
                f"bank features: width {features.shape[1]} where the bank has {self._x[0].shape[1]}; reset it"
            )
        self._x.append(features)
        self._y.append(labels)
        if self.capacity is not None and len(self) > self.capacity:
            self._x = [torch.cat(self._x)[-self.capacity :]]
            self._y = [np.concatenate(self._y)[-self.capacity :]]
        return self

    def reset(self) -> OnlineKNN:
        """Forget the bank: the encoder has moved on. Returns itself."""
        self._x, self._y = [], []
        return self

    def predict(self, x: Array) -> np.ndarray:
        """The class of each row of ``(m, d)`` features, ``(m,)`` int64.

        Raises:
            UserError: the bank is empty, or the widths differ.
        """
        if not self._x:
            raise UserError("bank: empty; update it with labelled embeddings first")
        self._x, self._y = [torch.cat(self._x)], [np.concatenate(self._y)]
        bank, features = self._x[0], as_features(x, "test features")
        if features.shape[1] != bank.shape[1]:
            raise UserError(f"test features: width {features.shape[1]} where the bank has {bank.shape[1]}")
        classes, labels = np.unique(self._y[0], return_inverse=True)
        index = torch.as_tensor(labels, device=bank.device)
        votes = vote(bank, index, normalise(features.to(bank)), len(classes), k=self.k, temperature=self.temperature)
        return classes[votes.argmax(1).cpu().numpy()]

    def score(self, x: Array, y: Array) -> float:
        """Accuracy on ``(m, d)`` features with classes ``(m,)``; a class that the bank lacks counts as wrong."""
        predicted = self.predict(x)
        return float((predicted == as_labels(y, len(predicted), "test labels")).mean())
