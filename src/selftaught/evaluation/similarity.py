"""How alike two networks' layers are, whatever their widths: linear CKA (Kornblith et al., 2019, arXiv 1905.00414)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features

__all__ = ["blockiness", "cka_matrix", "linear_cka"]


def linear_cka(x: Array, y: Array, *, unbiased: bool = False) -> float:
    """CKA(X, Y) = ||Yc^T Xc||_F^2 / (||Xc^T Xc||_F ||Yc^T Yc||_F), columns centred.

    1 for Y = X Q with an orthogonal Q and any scale. Few samples bias it upwards: below some 256 take ``unbiased``, the
    same with Song et al.'s U-statistic of HSIC, which is 0 on average for independent features (and can be below).

    Args:
        x: ``(n, d)`` features.
        y: ``(n, e)`` features of the same samples.
        unbiased: see above; needs 4 samples.

    Raises:
        UserError: NaN, other samples, too few, features that are the same for all samples.
    """
    a, b = as_features(x, "x").double(), as_features(y, "y").double()
    if len(a) != len(b):
        raise UserError(f"linear_cka: {len(a)} and {len(b)} samples; embed the same ones with both")
    if len(a) < (4 if unbiased else 2):
        raise UserError(f"linear_cka: {len(a)} samples; give 4 or more" if unbiased else "linear_cka: give 2 samples")
    hsic = _unbiased if unbiased else _biased
    across, own_a, own_b = hsic(a, b), hsic(a, a), hsic(b, b)
    if own_a <= 0 or own_b <= 0:
        raise UserError("linear_cka: features that are the same for all samples have no similarity")
    return across / (own_a * own_b) ** 0.5


def _biased(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(0), b - b.mean(0)
    if a.shape[1] + b.shape[1] > 2 * len(a):
        return float(((a @ a.T) * (b @ b.T)).sum())
    return float((b.T @ a).square().sum())


def _unbiased(a: Tensor, b: Tensor) -> float:
    n = len(a)
    k, m = (x @ x.T for x in (a - a.mean(0), b - b.mean(0)))
    k.fill_diagonal_(0)
    m.fill_diagonal_(0)
    middle = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) * m.sum(0)).sum() / (n - 2)
    return float(middle) / (n * (n - 3))


def cka_matrix(first: Mapping[str, Array], second: Mapping[str, Array], *, unbiased: bool = False) -> np.ndarray:
    """Linear CKA of every layer of one network with every layer of another.

    Args:
        first: layer -> ``(n, d)``.
        second: layer -> ``(n, e)``.
        unbiased: see `linear_cka`.

    Returns:
        (layers of the first, layers of the second) float64.
    """
    return np.array([[linear_cka(x, y, unbiased=unbiased) for y in second.values()] for x in first.values()])


def blockiness(matrix: np.ndarray) -> float:
    """How much neighbouring layers are alike: the mean of CKA between neighbours minus that of all other pairs.

    A large value goes with the grid of layers that each do something of their own, one near 0 with a block of layers
    that all say the same.

    Raises:
        UserError: a matrix that isn't square, or of fewer than 3 layers.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 3:
        raise UserError(f"blockiness: a square matrix of 3 layers or more, got {matrix.shape}")
    rows, columns = np.indices(matrix.shape)
    gap = np.abs(rows - columns)
    return float(matrix[gap == 1].mean() - matrix[gap > 1].mean())
