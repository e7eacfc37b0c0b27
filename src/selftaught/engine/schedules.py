"""Learning-rate schedules that don't need to know how long training will go on (Singh et al., 2025, arXiv 2503.02844).

    warm-up    0 <= n <= N_w        eta = eta_max n / N_w
    cooldown   N_w < n <= N_c       eta = eta_const + (eta_max - eta_const) / 2 (1 + cos(pi (n - N_w) / (N_c - N_w)))
    constant   N_c < n <= N_d       eta = eta_const
    annealing  N_d < n              eta = eta_const (eta_min / eta_const)^((n - N_d) / t_a)

N_d is chosen when a model is wanted: training goes on from the state at N_d, the annealed model is cut off beside it.
The next task begins there as well, at eta_const, without a warm-up. The baseline is :func:`repeated_cosine`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selftaught.errors import UserError

__all__ = [
    "ANNEALINGS",
    "COOLDOWNS",
    "ENDLESS",
    "InfiniteSchedule",
    "anneal_from",
    "endless",
    "infinite_lr",
    "repeated_cosine",
    "wsd",
]

ENDLESS = ("infinite", "wsd")
"""Schedules of a method's config that are an :class:`InfiniteSchedule`."""

COOLDOWNS = ("cosine", "linear", "inv_sqrt", "constant")
ANNEALINGS = ("exponential", "linear", "sqrt")
_BEND = 10.0
"""a of the inverse square root: f(u) = 1 / sqrt(1 + a u) - 1."""


@dataclass(frozen=True)
class InfiniteSchedule:
    """The schedule over steps: four phases by their END points.

    Attributes:
        warmup: N_w, last step of the warm-up; 0 for none.
        cooldown_end: N_c; equal to ``warmup`` for none.
        constant_end: N_d, where annealing begins.
        total: N_d + t_a, where annealing ends; from there on the rate stays.
        eta_max: highest rate.
        eta_const: rate of the constant phase.
        eta_min: rate at the end of the annealing.
        cooldown: "cosine", "linear", "inv_sqrt", or "constant" (at eta_const from the warm-up on).
        annealing: "exponential", "linear" or "sqrt" (1 - sqrt of the share).

    Raises:
        UserError: end points out of order, rates out of order, exponential annealing to 0, unknown shapes.
    """

    warmup: int
    cooldown_end: int
    constant_end: int
    total: int
    eta_max: float = 1.0
    eta_const: float = 0.25
    eta_min: float = 0.1
    cooldown: str = "cosine"
    annealing: str = "exponential"

    def __post_init__(self) -> None:
        ends = (self.warmup, self.cooldown_end, self.constant_end, self.total)
        if not 0 <= ends[0] <= ends[1] <= ends[2] <= ends[3]:
            raise UserError(
                f"warm-up, cooldown, constant phase and annealing end at {', '.join(map(str, ends))}: these are end "
                "points and must not fall"
            )
        if not 0 <= self.eta_min <= self.eta_const <= self.eta_max:
            raise UserError(
                f"rates need 0 <= {self.eta_min:g} (min) <= {self.eta_const:g} (constant) <= {self.eta_max:g}"
            )
        for name, value, known in (
            ("cooldown", self.cooldown, COOLDOWNS),
            ("annealing", self.annealing, ANNEALINGS),
        ):
            if value not in known:
                raise UserError(f"{name}={value}: choose {', '.join(known)}")
        if self.annealing == "exponential" and self.eta_min <= 0 < self.total - self.constant_end:
            raise UserError("exponential annealing never reaches a rate of 0; give a rate above 0, or anneal linearly")

    def __call__(self, n: int) -> float:
        """The rate at step n (0 is the first).

        Raises:
            UserError: a negative step.
        """
        if n < 0:
            raise UserError(f"step {n} can't be negative")
        if n < self.warmup or (n == self.warmup and n):
            return self.eta_max * n / self.warmup
        if n <= self.cooldown_end and self.cooldown_end > self.warmup:
            return self._cooling((n - self.warmup) / (self.cooldown_end - self.warmup))
        if n <= self.constant_end:
            return self.eta_const
        share = min(1.0, (n - self.constant_end) / (self.total - self.constant_end)) if n < self.total else 1.0
        return self._annealed(share)

    def _cooling(self, u: float) -> float:
        high, low = self.eta_max, self.eta_const
        if self.cooldown == "cosine":
            return low + (high - low) / 2 * (1 + math.cos(math.pi * u))
        if self.cooldown == "linear":
            return high - (high - low) * u
        if self.cooldown == "inv_sqrt":
            return high + (low - high) * _inverse_root(u) / _inverse_root(1.0)
        return low

    def _annealed(self, share: float) -> float:
        if self.total == self.constant_end or self.eta_const == 0:
            return self.eta_const
        if self.annealing == "exponential":
            return self.eta_const * (self.eta_min / self.eta_const) ** share
        left = 1 - (share if self.annealing == "linear" else math.sqrt(share))
        return self.eta_min + (self.eta_const - self.eta_min) * left


def _inverse_root(u: float) -> float:
    return 1 / math.sqrt(1 + _BEND * u) - 1


def infinite_lr(
    n: int,
    total: int,
    *,
    eta_max: float = 1.0,
    warmup: float = 0.05,
    cooldown_end: float = 0.3,
    constant_end: float = 0.8,
    constant: float = 0.25,
    minimum: float = 0.1,
    cooldown: str = "cosine",
    annealing: str = "exponential",
    task: int = 0,
) -> float:
    """The infinite schedule at step ``n`` of a task of ``total`` steps, as the authors' code has it.

    Args:
        n: step, from 0.
        total: T.
        eta_max: highest rate.
        warmup: end of the warm-up as a share of T: N_w = int(warmup T).
        cooldown_end: end of the cooldown (c): N_c = int(c T). An end point, no length.
        constant_end: where annealing begins: N_d = int(constant_end T).
        constant: k; eta_const = k eta_max.
        minimum: eta_min in eta_max.
        cooldown: shape of the cooldown.
        annealing: shape of the annealing.
        task: 0 is the first; later ones have neither warm-up nor cooldown.

    Raises:
        UserError: end points or rates out of order, unknown shapes.
    """
    ends = (0.0, 0.0, constant_end) if task else (warmup, cooldown_end, constant_end)
    n_w, n_c, n_d = (int(end * total + 1e-9) for end in ends)
    rates = (eta_max, constant * eta_max, minimum * eta_max)
    return InfiniteSchedule(n_w, n_c, n_d, total, *rates, cooldown=cooldown, annealing=annealing)(n)


def wsd(
    n: int, total: int, *, eta_max: float = 1.0, warmup: float = 0.05, decay: float = 0.2, minimum: float = 0.1
) -> float:
    """Warm-up, stable, decay: the infinite schedule whose constant rate is the highest one (k = 1).

    Args:
        n: step, from 0.
        total: T.
        eta_max: highest rate.
        warmup: length of the warm-up as a share of T.
        decay: length of the decay as a share of T.
        minimum: last rate in eta_max.
    """
    return infinite_lr(
        n, total, eta_max=eta_max, warmup=warmup, cooldown_end=warmup, constant_end=1 - decay, constant=1.0,
        minimum=minimum,
    )  # fmt: skip


def anneal_from(
    n: int, step: int, length: int, *, eta_const: float, eta_min: float, annealing: str = "exponential"
) -> float:
    """The rate of a branch that is annealed from ``step`` on within ``length`` steps.

    Raises:
        UserError: a step before the branch, an empty branch.
    """
    if n < step or length < 1:
        raise UserError(f"a branch at step {step} of {length} steps has no step {n}")
    return InfiniteSchedule(0, 0, step, step + length, eta_const, eta_const, eta_min, annealing=annealing)(n)


def endless(config: Any, total: int, *, task: int = 0, branch: int | None = None) -> InfiniteSchedule:
    """The schedule that a method's options ask for, relative to its learning rate.

    Args:
        config: a :class:`~selftaught.engine.method_config.MethodConfig` with the schedule "infinite" or "wsd".
        total: steps of the run.
        task: 0 is the first of a stream of tasks; later ones have neither warm-up nor cooldown.
        branch: step at which a branch is annealed until ``total``; None: where the options say.

    Raises:
        UserError: end points out of order.
    """
    wsd_ = config.schedule == "wsd"
    constant = 1.0 if wsd_ else config.constant_lr
    shapes = {"cooldown": config.cooldown_shape, "annealing": config.anneal_shape}
    rates = (1.0, constant, min(config.anneal_lr, constant))
    if branch is not None:
        return InfiniteSchedule(0, 0, branch, total, constant, *rates[1:], **shapes)
    n_d = _step(config.anneal_start, total)
    if task:
        return InfiniteSchedule(0, 0, n_d, total, constant, *rates[1:], **shapes)
    n_w = _step(config.warmup_end, total)
    n_c = n_w if wsd_ or not config.cooldown_end else _step(config.cooldown_end, total)
    return InfiniteSchedule(n_w, n_c, n_d, total, *rates, **shapes)


def _step(end: float, total: int) -> int:
    """An end point: a share up to 1, else a step."""
    return min(total, int(end * total + 1e-9 if end <= 1 else end))


def repeated_cosine(
    n: float, lengths: Sequence[float], *, eta_max: float = 1.0, warmup: float = 0.05, eta_min: float = 0.0
) -> float:
    """The baseline: in every task a linear warm-up and half a cosine anew.

        eta_min + (eta_max - eta_min) / 2 (1 + cos(pi (e - e_w) / (E - e_w)))

    Args:
        n: step or fractional epoch since the first task began.
        lengths: steps (epochs) E of each task; past the last the rate stays.
        eta_max: highest rate.
        warmup: e_w: a share of each task below 1, else steps (epochs).
        eta_min: last rate of each task.

    Raises:
        UserError: no task, or one that is no longer than its warm-up.
    """
    if n < 0 or not lengths:
        raise UserError("a repeated cosine needs the lengths of its tasks and a step of 0 or more")
    for length in lengths[:-1]:
        if n < length:
            break
        n -= length
    else:
        length = lengths[-1]
    e_w = warmup * length if warmup < 1 else warmup
    if e_w >= length:
        raise UserError(f"a warm-up of {e_w:g} leaves nothing of a task of {length:g}")
    if n < e_w:
        return eta_max * n / e_w
    return eta_min + (eta_max - eta_min) / 2 * (1 + math.cos(math.pi * min(1.0, (n - e_w) / (length - e_w))))
