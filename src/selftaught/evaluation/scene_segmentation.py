"""Segmentation of clouds: a linear layer over frozen features of single points, judged by mean IoU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Result
from selftaught.evaluation.segmentation import dense_numbers

__all__ = ["scene_segmentation"]


@protocol("scene-segmentation", "a class for every point, linear on frozen features: IoU", inputs="scenes")
def scene_segmentation(
    train_features: Any,
    train_labels: Any,
    test_features: Sequence[Any],
    test_labels: Sequence[Any],
    *,
    classes: int | None = None,
    decay: float = 1e-3,
    iterations: int = 60,
    seed: int = 0,
) -> Result:
    """Logistic regression of every point's class on its features; features are standardised by the training points.

    Args:
        train_features: (n, D) of single points.
        train_labels: (n,) whole numbers, -1 where a point has no class: such points count for nothing.
        test_features: per cloud (m, D).
        test_labels: per cloud (m,).
        classes: K; None: as many as the labels name.
        decay: weight of the squared weights.
        iterations: of L-BFGS.
        seed: of nothing but the interval.

    Returns:
        ``Result`` "scene-segmentation": ``miou``, ``pixel_accuracy`` (of points) and ``iou K``; intervals over clouds.

    Raises:
        UserError: shapes that don't fit, points of one class alone.
    """
    x, y = torch.as_tensor(np.asarray(train_features)).double(), torch.as_tensor(np.asarray(train_labels)).long()
    if x.dim() != 2 or y.shape != x.shape[:1] or len(test_features) != len(test_labels) or not len(test_features):
        raise UserError(f"train features (n, D) and labels (n,), got {tuple(x.shape)} and {tuple(y.shape)}")
    x, y = x[y >= 0], y[y >= 0]
    if len(torch.unique(y)) < 2:
        raise UserError("train labels: the points are of one class alone; a probe needs two")
    count = int(max(int(y.max()), *(int(np.max(t, initial=-1)) for t in test_labels))) + 1
    count = count if classes is None else classes
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-6)
    head = _fitted(((x - mean) / spread).float(), y, count, decay, iterations)
    confusions = []
    for features, labels in zip(test_features, test_labels, strict=True):
        z = ((torch.as_tensor(np.asarray(features)).double() - mean) / spread).float()
        truth = torch.as_tensor(np.asarray(labels)).long()
        with torch.no_grad():
            guess = head(z).argmax(1)
        cells = (truth * count + guess)[truth >= 0]
        confusions.append(torch.bincount(cells, minlength=count**2).view(count, count).numpy())
    stacked = np.stack(confusions)
    return Result("scene-segmentation", dense_numbers(stacked), {"confusion": {"matrix": stacked.sum(0)}})


def _fitted(x: Tensor, y: Tensor, classes: int, decay: float, iterations: int) -> nn.Linear:
    head = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    solver = torch.optim.LBFGS(head.parameters(), max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(head(x), y) + decay * head.weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return head
