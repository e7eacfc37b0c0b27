"""Singular vectors whose derivatives stay finite where singular values are equal or zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["svd"]


def svd(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, k), S (k,) and V^T (k, k) of a matrix (m, k), m >= k, as ``torch.linalg.svd`` gives them.

    The derivative turns the vectors of two singular values by 1 / (s_j^2 - s_i^2) and leaves the matrix's columns by
    1 / s; where these are infinite up to rounding, for vectors that the matrix doesn't determine, they are 0.
    """
    u, s, vh = _SVD.apply(a)
    return u, s, vh


class _SVD(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(a, full_matrices=False)
        return u, s, vh

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, du: Tensor, ds: Tensor, dvh: Tensor) -> Tensor:
        """(U (skew(U^T dU) / E S + S skew(V^T dV) / E + diag dS) + (1 - U U^T) dU / S) V^T, E_ij = s_j^2 - s_i^2."""
        u, s, vh = ctx.saved_tensors
        least = torch.finfo(s.dtype).eps * max(u.shape) * s.detach().amax()
        over = _inverse(s.square() - s.square()[:, None], least * s.detach().amax())
        inner = _skew(u.mT @ du) * over * s + s[:, None] * _skew(vh @ dvh.mT) * over + ds.diag()
        return (u @ inner + (du - u @ (u.mT @ du)) * _inverse(s, least)) @ vh


def _skew(x: Tensor) -> Tensor:
    return x - x.mT


def _inverse(x: Tensor, least: Tensor) -> Tensor:
    """1 / x; 0 where x is no larger than ``least``."""
    kept = x.abs() > least
    return torch.where(kept, 1 / torch.where(kept, x, 1), 0)
