"""Ridge regression on frozen features, for targets that are numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_targets, feature_pair
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.classification import error_numbers
from selftaught.evaluation.logistic import moments
from selftaught.evaluation.result import Result

__all__ = ["regression"]

PENALTIES = tuple(10.0**e for e in range(-3, 7))


@protocol("regression", "ridge regression on numeric targets: MAE, RMSE, rho", inputs="split")
def regression(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    penalties: Sequence[float] = PENALTIES,
) -> Result:
    """Ridge regression on standardised features, its penalty chosen by exact leave-one-out error on the training set.

    Minimises ``||y - a - X w||^2 + penalty ||w||^2``; the left-out residual is ``e_i / (1 - h_ii)`` with H the hat
    matrix (Allen's PRESS), so that the whole grid costs one eigendecomposition.

    Args:
        train_x: ``(n, d)``, n >= 2.
        train_y: ``(n,)`` or ``(n, m)`` numbers.
        test_x: ``(t, d)``.
        test_y: ``(t,)`` or ``(t, m)``.
        penalties: the grid, default 1e-3 ... 1e6; a single one is used as it is.

    Returns:
        ``Result`` "regression": MAE, RMSE, Pearson's rho and (no zero targets) MAPE, with intervals over test items;
        for several targets the names carry ``@j``. Figures: ``scatter`` (truth, predicted) and ``regularisation``.

    Raises:
        UserError: NaN, lengths or widths that do not match, fewer than two training samples, a penalty not positive.
    """
    train, test = feature_pair(train_x, test_x)
    y, truth = as_targets(train_y, len(train), "train targets"), as_targets(test_y, len(test), "test targets")
    if y.shape[1] != truth.shape[1]:
        raise UserError(f"test targets: {truth.shape[1]} columns where the train targets have {y.shape[1]}")
    if len(train) < 2:
        raise UserError("train features: a single sample; a regression needs at least two")
    if not penalties or min(penalties) <= 0:
        raise UserError("penalties: pass positive penalties, such as 1 100 10000")
    mean, scale = moments(train)
    x, t = ((part - mean).double() / scale.double() for part in (train, test))
    predicted, errors, chosen = _ridge(x, torch.as_tensor(y, device=x.device), t, tuple(penalties))
    numbers = {}
    for j in range(y.shape[1]):
        suffix = "" if y.shape[1] == 1 else f"@{j}"
        for name, number in error_numbers(predicted[:, j], truth[:, j]).items():
            numbers[name + suffix] = number
    grid = {"penalties": list(penalties), "leave_one_out": errors, "chosen": chosen}
    scatter = {"truth": truth, "predicted": predicted}
    return Result("regression", numbers, {"scatter": scatter, "regularisation": grid})


def _ridge(x: Tensor, y: Tensor, t: Tensor, penalties: tuple[float, ...]) -> tuple[np.ndarray, list[float], float]:
    """Test predictions, the leave-one-out mean square of every penalty, and the penalty with the least."""
    offset = y.mean(0)
    n, d = x.shape
    wide = n < d
    energy, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = energy > 1e-12 * energy[-1].clamp_min(1e-30)
    energy, vectors = energy[kept], vectors[:, kept]
    basis = vectors if wide else x @ vectors / energy.sqrt()  # left singular vectors (n, r)
    right = x.T @ vectors / energy.sqrt() if wide else vectors  # right ones (d, r)
    target = basis.T @ (y - offset)
    errors = []
    for penalty in penalties:
        shrink = energy / (energy + penalty)
        residual = y - offset - basis @ (shrink[:, None] * target)
        leverage = 1 / n + basis.square() @ shrink
        errors.append(float((residual / (1 - leverage).clamp_min(1e-9)[:, None]).square().mean()))
    chosen = penalties[int(np.argmin(errors))]
    coefficient = right @ ((energy.sqrt() / (energy + chosen))[:, None] * target)
    return (t @ coefficient + offset).cpu().numpy(), errors, chosen
