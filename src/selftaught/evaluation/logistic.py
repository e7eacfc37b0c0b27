"""Multinomial logistic regression for many regularisation strengths and folds at once, by L-BFGS.

Linear probes solve the same small problem dozens of times: a grid of strengths, folds, seeds, sizes. Here all problems
on one set of features advance together, so that an iteration is two matrix products for the whole grid. Three facts
about linear models make it quick and exact:

- the penalty is invariant to rotation, so the features are first rotated to the eigenbasis of their covariance, where
  the Hessian is nearly diagonal: with fewer samples than features this also shrinks the problem to the samples' span;
- Boehning's (1992) bound ``H <= 1/2 (X^T X) (x) (I - 11^T/k)`` is then a diagonal preconditioner to start L-BFGS from;
- the logits are linear in the step length, so that a line search costs no matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = []

HISTORY = 8
ROTATE_UP_TO = 1536


@dataclass(frozen=True)
class Space:
    """Standardised features in the eigenbasis of their covariance.

    Args:
        mean: ``(d,)`` subtracted from the features.
        scale: ``(d,)`` the features are divided by.
        rotation: ``(d, r)`` with orthonormal columns, or ``None`` where the features were too many to rotate.
        energy: ``(r,)`` sum of squares of each coordinate over the samples.
    """

    mean: Tensor
    scale: Tensor
    rotation: Tensor | None
    energy: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Features ``(n, d)`` -> coordinates ``(n, r)``."""
        z = (x - self.mean) / self.scale
        return z if self.rotation is None else z @ self.rotation


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of every feature, ``(d,)`` each; a constant feature gets 1.

    Args:
        x: ``(n, d)``.
    """
    mean = x.mean(0)
    deviation = (x - mean).square().mean(0).sqrt()
    floor = 1e-6 * torch.maximum(mean.abs(), deviation.max())
    return mean, torch.where(deviation > floor, deviation, torch.ones_like(deviation))


def make_space(x: Tensor, statistics: tuple[Tensor, Tensor]) -> tuple[Space, Tensor]:
    """Standardise the features and rotate them to their principal axes.

    Args:
        x: ``(n, d)`` training features.
        statistics: mean and deviation to standardise by (see ``moments``).

    Returns:
        The space, to map test features with, and the training coordinates ``(n, r)``, r <= min(n, d).
    """
    mean, scale = statistics
    z = (x - mean) / scale
    n, d = z.shape
    if min(n, d) > ROTATE_UP_TO:
        return Space(mean, scale, None, z.square().sum(0)), z
    wide = z.double()
    energy, vectors = torch.linalg.eigh(wide @ wide.T if n < d else wide.T @ wide)
    kept = energy > 1e-12 * energy[-1].clamp_min(1e-30)
    if not bool(kept.any()):
        kept[-1] = True
    energy, vectors = energy[kept].clamp_min(1e-30), vectors[:, kept]
    rotation = (wide.T @ vectors / energy.sqrt() if n < d else vectors).to(x)
    return Space(mean, scale, rotation, energy.to(x)), z @ rotation


@dataclass(frozen=True)
class Solution:
    """Minimisers of B logistic regressions on the same features.

    Args:
        weight: ``(r, B, k)``.
        bias: ``(B, k)``.
        iterations: how many L-BFGS iterations the slowest of them took.
        converged: ``(B,)`` bool.
    """

    weight: Tensor
    bias: Tensor
    iterations: int
    converged: Tensor

    def logits(self, z: Tensor) -> Tensor:
        """Coordinates ``(n, r)`` -> logits ``(n, B, k)``."""
        r, b, k = self.weight.shape
        return (z @ self.weight.reshape(r, b * k)).reshape(len(z), b, k) + self.bias


def fit(
    z: Tensor,
    y: Tensor,
    k: int,
    c: Sequence[float],
    *,
    energy: Tensor | None = None,
    sample_weight: Tensor | None = None,
    tolerance: float = 1e-7,
    max_iterations: int = 300,
) -> Solution:
    """Minimise ``sum_i w_bi CE(z_i W_b + a_b, y_i) + ||W_b||^2 / (2 c_b)`` for B problems at once (the bias is free).

    Args:
        z: ``(n, r)`` features, best from ``make_space``.
        y: ``(n,)`` int64 in 0..k-1.
        k: number of classes.
        c: B inverse regularisation strengths: scikit-learn's C with three classes and more. With two, scikit-learn
            fits the difference of our two weight vectors alone, and the same fit has C = 2 c there.
        energy: ``(r,)`` sum of squares of each feature (computed if not given); for the preconditioner only.
        sample_weight: ``(n, B)``, not negative; 0 leaves a sample out of a problem (a fold). All 1 if not given.
        tolerance: a problem is done when the estimated excess of its mean loss over the minimum is below this (nats).
        max_iterations: at most so many.

    Returns:
        ``Solution``.
    """
    n, r = z.shape
    energy = z.square().sum(0) if energy is None else energy
    weight = torch.ones(n, len(c), dtype=z.dtype, device=z.device) if sample_weight is None else sample_weight.to(z)
    total = weight.sum(0)
    z1 = torch.cat([z, z.new_ones(n, 1)], 1)
    penalty = 1 / (torch.tensor(list(c), dtype=torch.float64).to(z) * total)
    ridge = torch.cat([penalty.expand(r, -1), torch.zeros_like(penalty)[None]])[..., None]
    curvature = 0.5 * torch.cat([energy, energy.new_tensor([float(n)])])[:, None, None] / n + ridge
    problem = _Problem(z1, y, weight / total, ridge, 1 / curvature)
    theta = z.new_zeros(r + 1, len(c), k)
    done, iterations = problem.minimise(theta, tolerance, max_iterations)
    return Solution(theta[:-1], theta[-1], iterations, done)


@dataclass
class _Problem:
    """B losses over parameters ``(p, B, k)``; the last row of the parameters is the bias."""

    z: Tensor  # (n, p)
    y: Tensor  # (n,)
    weight: Tensor  # (n, B), columns sum to 1
    ridge: Tensor  # (p, B, 1)
    inverse: Tensor  # (p, B, 1), the diagonal preconditioner

    def minimise(self, out: Tensor, tolerance: float, max_iterations: int) -> tuple[Tensor, int]:
        """Write the minimisers into ``out``; a problem that is done leaves the batch."""
        b = out.shape[1]
        done, active = torch.zeros(b, dtype=torch.bool, device=out.device), torch.arange(b, device=out.device)
        theta, logits = out.clone(), self.z.new_zeros(len(self.z), *out.shape[1:])
        gradient, past = self.gradient(theta, logits), _History()
        for iteration in range(max_iterations):
            direction = -past.apply(gradient, self.inverse)
            slope = _dot(gradient, direction)
            finished = -slope <= 2 * tolerance
            if bool(finished.any()):
                out[:, active[finished]], done[active[finished]] = theta[:, finished], True
                keep = (~finished).nonzero()[:, 0]
                if not len(keep):
                    return done, iteration
                active, theta, logits = active[keep], theta[:, keep], logits[:, keep]
                gradient, direction, slope = gradient[:, keep], direction[:, keep], slope[keep]
                self.shrink(keep)
                past.shrink(keep)
            change = self.product(direction)
            step = self.step_length(theta, direction, logits, change, slope)[:, None]
            theta, logits = theta + step * direction, logits + step * change
            following = self.gradient(theta, logits)
            past.add(step * direction, following - gradient)
            gradient = following
        out[:, active] = theta
        return done, max_iterations

    def product(self, theta: Tensor) -> Tensor:
        p, b, k = theta.shape
        return (self.z @ theta.reshape(p, b * k)).reshape(len(self.z), b, k)

    def gradient(self, theta: Tensor, logits: Tensor) -> Tensor:
        error = torch.softmax(logits, -1)
        error[torch.arange(len(self.y), device=error.device), :, self.y] -= 1
        error *= self.weight[..., None]
        return (self.z.T @ error.flatten(1)).reshape(theta.shape) + self.ridge * theta

    def step_length(self, theta: Tensor, direction: Tensor, logits: Tensor, change: Tensor, slope: Tensor) -> Tensor:
        """Backtracking from 1 to Armijo's condition, per problem, by the parabola through value and slope."""
        linear, square = _dot(self.ridge * theta, direction), 0.5 * _dot(self.ridge * direction, direction)
        start, step = self.loss(logits), torch.ones_like(slope)
        slack = 4 * torch.finfo(slope.dtype).eps * (1 + start.abs())
        for _ in range(25):
            rise = self.loss(logits + step[:, None] * change) - start + step * (linear + step * square)
            failed = rise > 1e-4 * step * slope + slack
            if not bool(failed.any()):
                break
            parabola = -slope * step / (2 * (rise - slope * step)).clamp_min(1e-30)
            step = torch.where(failed, step * parabola.nan_to_num(0.1).clamp(0.1, 0.5), step)
        return step

    def loss(self, logits: Tensor) -> Tensor:
        index = self.y[:, None, None].expand(-1, logits.shape[1], 1)
        own = logits.gather(-1, index)[..., 0]
        return ((torch.logsumexp(logits, -1) - own) * self.weight).sum(0)

    def shrink(self, keep: Tensor) -> None:
        self.weight, self.ridge, self.inverse = self.weight[:, keep], self.ridge[:, keep], self.inverse[:, keep]


class _History:
    """The last steps and gradient changes, and the inverse Hessian that they imply (two-loop recursion)."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a pair; where rounding made ``s.y`` not positive the pair counts for nothing."""
        curvature = _dot(step, change)
        rho = torch.where(curvature > 1e-30, 1 / curvature, torch.zeros_like(curvature))
        self.pairs = [*self.pairs[-HISTORY + 1 :], (step, change, rho)]

    def apply(self, gradient: Tensor, inverse: Tensor) -> Tensor:
        """Inverse Hessian times gradient."""
        q, alphas = gradient.clone(), []
        for step, change, rho in reversed(self.pairs):
            alphas.append(rho * _dot(step, q))
            q -= alphas[-1][:, None] * change
        q = inverse * q
        if self.pairs:
            _, change, rho = self.pairs[-1]
            scaled = rho * _dot(inverse * change, change)
            q *= torch.where(scaled > 0, 1 / scaled, torch.ones_like(scaled))[:, None]
        for (step, change, rho), alpha in zip(self.pairs, reversed(alphas), strict=True):
            q += (alpha - rho * _dot(change, q))[:, None] * step
        return q

    def shrink(self, keep: Tensor) -> None:
        """Keep the problems that are still running."""
        self.pairs = [(step[:, keep], change[:, keep], rho[keep]) for step, change, rho in self.pairs]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product per problem: ``(p, B, k)`` twice -> ``(B,)``."""
    return (a * b).sum(0).sum(1)
