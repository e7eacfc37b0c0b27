"""Statistics over the batch: standardised features and the squares of their correlations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5
STATISTICS = " (for statistics over it); raise the batch size"


def standardise(z: Tensor, normalize: str, centre_only: bool) -> Tensor:
    """Embeddings (N, D) with mean 0 and deviation 1 over the batch or over the features, or centred alone."""
    if normalize == "none":
        return z
    if centre_only:
        return z - z.mean(0 if normalize == "batch" else 1, keepdim=True)
    if normalize == "batch":
        return F.batch_norm(z, None, None, training=True, eps=EPSILON)
    return F.layer_norm(z, z.shape[1:], eps=EPSILON)


def off_diagonal_squares(a: Tensor, b: Tensor, diagonal: Tensor, divisor: int, hsic: bool = False) -> Tensor:
    """Sum over i != j of C_ij^2, or of (C_ij + 1)^2, with C = a^T b / divisor and its diagonal.

    A wide projector has D well above N; then ||C||^2 comes from Gram matrices (:func:`squared_product`). For D < 2N
    the entries off the diagonal are summed one by one, since there ||C||^2 - sum C_ii^2 could cancel.
    """
    rows, width = a.shape
    if 2 * rows <= width:
        squares = squared_product(a, b) / divisor**2 - diagonal.square().sum()
        sums = (a.sum(1) @ b.sum(1)) / divisor - diagonal.sum() if hsic else squares
    else:
        off = off_diagonal(a.T @ b / divisor)
        squares, sums = off.square().sum(), off.sum()
    return squares + 2 * sums + width * (width - 1) if hsic else squares


def squared_product(a: Tensor, b: Tensor) -> Tensor:
    """||a^T b||_F^2 of (N, D) matrices; for D >= 2N as sum((a a^T) * (b b^T)).

    That needs two N x N matrices where a^T b needs D x D: at N = 256, D = 8192 0.5 MiB in place of 256 MiB, and a
    sixteenth of the work.
    """
    if 2 * a.shape[0] > a.shape[1]:
        return (a.T @ b).square().sum()
    gram = a @ a.T
    return (gram * (gram if b is a else b @ b.T)).sum()


def off_diagonal(matrix: Tensor) -> Tensor:
    """A view (D-1, D) of exactly the entries of a (D, D) matrix off its diagonal, without a copy.

    Without its last entry the flat matrix falls into D - 1 rows of D + 1, each headed by a diagonal entry.
    """
    width = matrix.shape[0]
    return matrix.flatten()[:-1].view(width - 1, width + 1)[:, 1:]
