"""Temperatures of pairs between two limits, and their regulariser: what AMCL's objectives have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_positive, check_views, in_float32, unit

Score = Callable[[Tensor, Tensor], Tensor]
"""(..., n, d) and (..., m, d) -> (..., n, m); its attribute ``numbers``, if any: what a pair takes meanwhile."""


@in_float32
def amcl_omega(tau: Tensor, dim: int) -> Tensor:
    """Omega(tau) = (d/2) log tau + 1/tau, AMCL's regulariser of a temperature, elementwise.

    -s/tau + beta Omega(tau) has its minimum over tau at 2 (beta - s)/(beta d) where s < beta, else at tau -> 0.
    """
    return dim / 2 * tau.log() + 1 / tau


class Temperature(NamedTuple):
    """How pairs get their temperatures, and what these weigh."""

    phi: Score | None
    lo: float | Tensor
    hi: float | Tensor
    beta: float
    detach: bool

    @property
    def fixed(self) -> bool:
        """Whether all pairs have the same temperature."""
        return bool(self.lo == self.hi)

    def between_limits(self, scores: Tensor) -> Tensor:
        """tau_lo + (tau_hi - tau_lo) sigmoid(score), elementwise."""
        return self.lo + (self.hi - self.lo) * scores.sigmoid()

    def of_all(self, a: Tensor, b: Tensor) -> Tensor:
        """(..., n, d) and (..., m, d) -> (..., n, m)."""
        if self.detach:
            a, b = a.detach(), b.detach()
        return self.between_limits(a @ b.transpose(-1, -2) if self.phi is None else self.phi(a, b))

    def of_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """(C, N, d) twice, row by row -> (C, N)."""
        if self.fixed:
            return a.new_zeros(a.shape[:-1]) + self.lo
        return self.of_all(a.unsqueeze(2), b.unsqueeze(2)).flatten(2).squeeze(2)

    def regulariser(self, tau: Tensor, width: int) -> Tensor:
        """Beta Omega(tau) for heads of this width, elementwise."""
        return self.beta * amcl_omega(tau, width)

    def exponent(self, similarity: Tensor, tau: Tensor, width: int) -> Tensor:
        """s/tau - beta Omega(tau)."""
        return similarity / tau - self.regulariser(tau, width)

    @classmethod
    def of(cls, phi: Score | None, lo: float | Tensor, hi: float | Tensor, beta: float, detach: bool) -> Temperature:
        """The same with its limits checked.

        Raises:
            UserError: a limit that isn't above 0, limits out of order, a negative ``beta``.
        """
        check_positive(tau_lo=lo, tau_hi=hi)
        if not lo <= hi:
            raise UserError(f"tau_hi must be at least tau_lo={float(lo):g}, got {float(hi):g}")
        if not beta >= 0:
            raise UserError(f"beta must be 0 or above, got {beta}")
        return cls(phi, lo, hi, beta, detach)


def unit_heads(z: Tensor) -> Tensor:
    """(B, C, D) or (B, D) -> (C, B, D), unit vectors."""
    return unit(z.unsqueeze(1) if z.dim() == 2 else z).transpose(0, 1)


def heads_of(z: Tensor) -> int:
    """C of (B, C, D); 1 of (B, D)."""
    return 1 if z.dim() == 2 else z.shape[1]


def check_heads(z1: Tensor, z2: Tensor, minimum: int) -> int:
    """Refuse what isn't (B, D) or (B, C, D) of one shape with B of ``minimum`` or more; returns B."""
    if z1.dim() not in (2, 3) or z1.shape != z2.shape:
        got = f"{tuple(z1.shape)} and {tuple(z2.shape)}"
        raise UserError(f"the views need one shape (batch, heads, dimension) or (batch, dimension), got {got}")
    why = "" if minimum == 1 else " (one sample has no negatives); raise the batch size"
    return check_views(z1.flatten(1), z2.flatten(1), minimum=minimum, why=why)[0]
