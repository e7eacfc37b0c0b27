"""AMCL's networks (arXiv 2310.05615): several heads on one encoder, and what predicts a temperature for every pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.heads import mlp

__all__ = ["MultiHead", "PairScore", "TemperatureTable"]


class MultiHead(nn.Module):
    """C heads of one shape, each with weights of its own: copies of one initialisation would learn one head C times.

    Args:
        count: heads C.
        widths: of every head, from input to output, as :func:`~selftaught.networks.mlp` takes them.
        **options: further options of :func:`~selftaught.networks.mlp`.

    Raises:
        UserError: less than one head, or what :func:`~selftaught.networks.mlp` refuses.
    """

    def __init__(self, count: int, widths: Sequence[int], **options: Any) -> None:
        super().__init__()
        if count < 1:
            raise UserError(f"heads={count}: give 1 or more")
        self.heads = nn.ModuleList(mlp(widths, **options) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """(N, d) features, the same for all heads, or (N, C, d), each head its own -> (N, C, D)."""
        inputs = x.unbind(1) if x.dim() == 3 else [x] * len(self.heads)
        return torch.stack([head(part) for head, part in zip(self.heads, inputs, strict=True)], 1)


class PairScore(nn.Module):
    """Scores of pairs of embeddings; AMCL's objectives turn them into temperatures between two limits.

    One network phi for all heads, apart from them:

        dot:     <phi(a), phi(b)>, phi a linear layer; symmetric, a matrix of scores is one product
        concat:  phi([a, b]), phi = Linear 2d-hidden, ReLU, Linear hidden-1 (the released code); asks one evaluation per
                 pair: its first layer is applied to a and b apart, the rest costs n x m x hidden numbers

    Args:
        dim: width d of an embedding; the objectives hand over unit vectors.
        kind: ``"dot"`` or ``"concat"``.
        hidden: hidden width of ``"concat"``.

    Attributes:
        numbers: numbers that a pair takes while its score is made.

    Raises:
        UserError: an unknown kind, a width below 1.
    """

    def __init__(self, dim: int, kind: Literal["dot", "concat"] = "dot", *, hidden: int = 128) -> None:
        super().__init__()
        if kind not in ("dot", "concat"):
            raise UserError(f"temperature network {kind!r}: choose dot or concat")
        if dim < 1 or hidden < 1:
            raise UserError(f"temperature network of width {dim}, hidden {hidden}: both must be 1 or more")
        self.kind, self.numbers = kind, 1 if kind == "dot" else hidden
        if kind == "dot":
            self.phi = nn.Linear(dim, dim)
        else:
            self.first, self.last = nn.Linear(2 * dim, hidden), nn.Linear(hidden, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(..., n, d) and (..., m, d) -> (..., n, m), the score of every a with every b."""
        if self.kind == "dot":
            return self.phi(a) @ self.phi(b).transpose(-1, -2)
        of_a, of_b = self.first.weight.chunk(2, dim=1)
        hidden = (a @ of_a.T + self.first.bias).unsqueeze(-2) + (b @ of_b.T).unsqueeze(-3)
        return self.last(hidden.relu()).squeeze(-1)


class TemperatureTable(nn.Module):
    """A free score for every pair of features of every head (C, D, D): AMCL on Barlow Twins, whose pairs are features.

    Args:
        count: heads C.
        dim: features D of a head.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        if count < 1 or dim < 1:
            raise UserError(f"a table for {count} heads of width {dim}: both must be 1 or more")
        self.table = nn.Parameter(torch.zeros(count, dim, dim))

    def forward(self) -> Tensor:
        """The scores (C, D, D); all 0, the middle between the limits, at first."""
        return self.table
