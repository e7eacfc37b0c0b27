"""Features per point judged: a linear layer, nearest neighbours, principal components (MSM, arXiv 2504.06719, sec. 4).

Features come as a list of arrays, one per scan; classes are whole numbers, -1 where a point has none. Intervals are
over the test scans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.diagnostics import effective_rank
from selftaught.evaluation.result import Number, Result
from selftaught.evaluation.segmentation import dense_numbers

__all__ = ["PrincipalColours", "point_knn", "point_linear", "point_pca", "principal_colours"]

Scans = Sequence[Any]


@protocol("point-linear", "a class for every point by a linear layer: mean IoU", inputs="points")
def point_linear(
    train_x: Scans,
    train_y: Scans,
    test_x: Scans,
    test_y: Scans,
    *,
    epochs: int = 200,
    warmup: int = 2,
    lr: float = 0.01,
    weight_decay: float = 0.01,
    batch: int = 8,
    seed: int = 0,
) -> Result:
    """A linear layer from a point's frozen features to its class; defaults are the paper's for ScanNet.

    AdamW with betas (0.9, 0.95), linear warm-up, then a cosine to 0.

    Args:
        train_x: (P_i, D) features of each training scan.
        train_y: (P_i,) classes.
        test_x: of the test scans.
        test_y: likewise.
        epochs: passes over the training scans (100 for S3DIS).
        warmup: epochs of linear warm-up.
        lr: largest rate.
        weight_decay: of AdamW.
        batch: scans per step.
        seed: of the layer and the order.

    Returns:
        ``Result`` "point-linear": ``miou`` over the classes of the test scans' points or predictions, ``accuracy``,
        ``iou K``.

    Raises:
        UserError: features and classes that don't fit each other, no class known, a number out of range.
    """
    if epochs < 1 or batch < 1 or warmup < 0 or not lr > 0:
        raise UserError(f"point-linear: epochs={epochs}, batch={batch} from 1, warmup={warmup} from 0, lr={lr} above 0")
    x, y = _checked(train_x, train_y, "train")
    tx, ty = _checked(test_x, test_y, "test")
    k = _classes(y, ty)
    per_epoch = math.ceil(len(x) / batch)
    total, warm = epochs * per_epoch, min(warmup, epochs // 2) * per_epoch
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(x[0].shape[1], k)
        stepper = torch.optim.AdamW(layer.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay)
        factor = torch.optim.lr_scheduler.LambdaLR(stepper, lambda step: _rate(step, total, warm))
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(batch):
                part, classes = torch.cat([x[i] for i in rows]), torch.cat([y[i] for i in rows])
                if not bool((classes >= 0).any()):
                    continue
                loss = F.cross_entropy(layer(part), classes, ignore_index=-1)
                stepper.zero_grad()
                loss.backward()
                stepper.step()
                factor.step()
    with torch.no_grad():
        guesses = [layer(one).argmax(1) for one in tx]
    return _judged("point-linear", guesses, ty, k)


@protocol("point-knn", "a class for every point by its nearest neighbour: mean IoU", inputs="points")
def point_knn(
    train_x: Scans, train_y: Scans, test_x: Scans, test_y: Scans, *, k: int = 1, most: int = 20_000
) -> Result:
    """The class of the nearest training points by cosine, by vote where k is more than 1.

    Args:
        train_x: (P_i, D) features of each training scan.
        train_y: (P_i,) classes.
        test_x: of the test scans.
        test_y: likewise.
        k: neighbours (1, as in the paper).
        most: training points that are searched, evenly over all.

    Returns:
        ``Result`` "point-knn": as :func:`point_linear`.

    Raises:
        UserError: as :func:`point_linear`; fewer training points than k.
    """
    x, y = _checked(train_x, train_y, "train")
    tx, ty = _checked(test_x, test_y, "test")
    classes = _classes(y, ty)
    known = [c >= 0 for c in y]
    gallery = torch.cat([one[m] for one, m in zip(x, known, strict=True)])
    labels = torch.cat([c[m] for c, m in zip(y, known, strict=True)])
    if not 1 <= k <= len(gallery):
        raise UserError(f"point-knn: k={k} of {len(gallery)} labelled training points")
    chosen = torch.linspace(0, len(gallery) - 1, min(max(most, k), len(gallery))).round().long()
    gallery, labels = F.normalize(gallery[chosen], dim=1), labels[chosen]
    guesses = []
    for one in tx:
        found = []
        for part in F.normalize(one, dim=1).split(2048):
            near = (part @ gallery.T).topk(k, dim=1).indices
            found.append(F.one_hot(labels[near], classes).sum(1).argmax(1))
        guesses.append(torch.cat(found))
    return _judged("point-knn", guesses, ty, classes)


@protocol("point-pca", "what three principal components hold of features per point", inputs="features")
def point_pca(x: Scans) -> Result:
    """How much of the features three principal components hold, which is what their colours show.

    Args:
        x: (P_i, D) features of each scan.

    Returns:
        ``Result`` "point-pca": ``explained_3``, the share of the variance; ``effective_rank``.

    Raises:
        UserError: no features, or fewer than three points or columns.
    """
    rows = torch.cat(_features(x, "features"))
    basis = principal_colours(rows.numpy())
    total = float((rows - rows.mean(0)).square().sum(1).mean())
    inside = (rows - torch.from_numpy(basis.mean)) @ torch.from_numpy(basis.directions).T
    share = float(inside.square().sum(1).mean()) / total if total > 0 else math.nan
    few = rows[torch.linspace(0, len(rows) - 1, min(len(rows), 4096)).round().long()]
    return Result("point-pca", {"explained_3": Number.of(share), "effective_rank": Number.of(effective_rank(few))})


class PrincipalColours(NamedTuple):
    """Features as colours.

    Attributes:
        mean: (D,).
        directions: (3, D), the first principal components.
        low: (3,) 2nd percentile along each.
        high: (3,) 98th percentile.
    """

    mean: np.ndarray
    directions: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(P, D) features -> (P, 3) uint8 colours."""
        level = ((x - self.mean) @ self.directions.T - self.low) / np.maximum(self.high - self.low, 1e-9)
        return (np.clip(level, 0, 1) * 255).round().astype(np.uint8)


def principal_colours(x: np.ndarray) -> PrincipalColours:
    """Principal components of features (P, D) as red, green and blue; the signs are fixed by the largest entry.

    Raises:
        UserError: fewer than three points or columns.
    """
    x = np.asarray(x, dtype=np.float32)
    if x.ndim != 2 or min(x.shape) < 3:
        raise UserError(f"three principal components need 3 points and 3 features or more, got {x.shape}")
    directions = principal_directions(x, 3)
    mean = x.mean(0)
    along = (x - mean) @ directions.T
    return PrincipalColours(mean, directions, *np.percentile(along, (2, 98), axis=0).astype(np.float32))


def principal_directions(x: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` principal components (count, D) of features (P, D), largest first."""
    centred = (x - x.mean(0)).astype(np.float64)
    found = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count].T
    sign = np.sign(found[np.arange(len(found)), np.abs(found).argmax(1)])
    return (found * sign[:, None]).astype(np.float32)


def _rate(step: int, total: int, warm: int) -> float:
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))


def _judged(name: str, guesses: list[Tensor], truth: list[Tensor], k: int) -> Result:
    counts = []
    for guess, classes in zip(guesses, truth, strict=True):
        kept = classes >= 0
        counts.append(torch.bincount(classes[kept] * k + guess[kept], minlength=k * k).view(k, k).numpy())
    confusions = np.stack(counts)
    numbers = dense_numbers(confusions)
    numbers = {"accuracy" if key == "pixel_accuracy" else key: value for key, value in numbers.items()}
    return Result(name, numbers, {"confusion": {"matrix": confusions.sum(0)}})


def _classes(*sides: list[Tensor]) -> int:
    return max(int(y.max()) for side in sides for y in side if len(y)) + 1


def _features(x: Scans, side: str) -> list[Tensor]:
    found = [torch.as_tensor(np.asarray(one)).float() for one in x]
    widths = {one.shape[1] if one.dim() == 2 else -1 for one in found}
    if len(widths) != 1 or -1 in widths or not sum(map(len, found)):
        raise UserError(f"{side}: features are a list of (P, D) of one D, a point or more in all")
    if not all(bool(one.isfinite().all()) for one in found):
        raise UserError(f"{side}: features hold NaN or infinite values; the model diverged")
    return found


def _checked(x: Scans, y: Scans, side: str) -> tuple[list[Tensor], list[Tensor]]:
    found = _features(x, side)
    classes = [torch.as_tensor(np.asarray(one)).long() for one in y]
    if [len(one) for one in found] != [len(one) if one.dim() == 1 else -1 for one in classes]:
        raise UserError(f"{side}: one class (P,) for every point of every scan")
    if not any(bool((one >= 0).any()) for one in classes):
        raise UserError(f"{side}: no point has a class")
    return found, classes
