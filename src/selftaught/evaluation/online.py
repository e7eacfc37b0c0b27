"""k-NN that is cheap enough to run while training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, as_labels
from selftaught.evaluation.neighbours import normalise, vote


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
