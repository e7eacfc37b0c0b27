"""What a fact is, and what its checks are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

EXACT = 1e-9
"""Deviation in float64 up to which two sides count as equal."""


@dataclass(frozen=True)
class Fact:
    """A sentence, the numbers that it was checked by, and whether they bear it out."""

    says: str
    numbers: dict[str, float]
    holds: bool

    def to_dict(self) -> dict[str, Any]:
        """As stored beside a claim."""
        return asdict(self)


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Rows of length 1 in all directions, float64."""
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def views(count: int, width: int = 32, *, number: int = 2, noise: float = 0.5) -> list[Tensor]:
    """Views (count, width) of the same rows that agree, but not wholly."""
    middle = unit(count, width)
    return [normalize(middle + noise * unit(count, width, seed=1 + v), dim=1) for v in range(number)]


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Of a scalar function at a point."""
    at = at.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(function(at), at)
    return found


def apart(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference."""
    return (a - b).abs().max().item()


def both_ways(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """InfoNCE between two views, the sum of both directions."""
    logits, rows = z1 @ z2.T / temperature, torch.arange(len(z1))
    return cross_entropy(logits, rows) + cross_entropy(logits.T, rows)
