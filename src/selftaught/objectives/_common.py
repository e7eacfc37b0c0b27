"""What every objective shares: float32 under autocast, and the checks of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import reduce, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from selftaught.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which autocast leaves the operations on ``device`` alone."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate an objective so that it computes in float32 whatever autocast says.

    Half-precision inputs are raised to float32 and float64 inputs keep float64; mixed inputs are raised to the widest.
    The gradients come back in each input's own type.
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        floating = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point()]
        if not floating:
            return function(*args, **kwargs)
        dtype = reduce(torch.promote_types, (t.dtype for t in floating), torch.float32)

        def raised(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        with without_autocast(floating[0].device):
            return function(*map(raised, args), **{k: raised(v) for k, v in kwargs.items()})  # type: ignore[arg-type]

    return wrapped


def check_views(*views: Tensor, minimum: int = 1, why: str = "") -> tuple[int, int]:
    """Refuse views that aren't (N, D) of one shape with at least ``minimum`` rows; returns (N, D).

    Raises:
        UserError: (a ``ValueError``) wrong rank, different shapes, integer values, or a batch below ``minimum``.
    """
    shapes = [tuple(v.shape) for v in views]
    if any(len(s) != 2 for s in shapes) or len(set(shapes)) != 1:
        raise UserError(f"the views need one shape (batch, dimension), got {' and '.join(map(str, shapes))}")
    if not all(v.is_floating_point() for v in views):
        raise UserError("the views need floating-point values; call .float() on them")
    rows, width = shapes[0]
    if rows < minimum:
        raise UserError(f"a batch of {rows} is too small: this objective needs at least {minimum}{why}")
    return rows, width


def check_positive(**values: float) -> None:
    """Refuse a hyper-parameter that must be above zero.

    Raises:
        UserError: it names the first value that is zero, negative or NaN.
    """
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} must be above 0, got {value}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that isn't one of ``choices``.

    Raises:
        UserError: it names the option, the value and the choices.
    """
    if value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def mean_distance(output: Tensor, target: Tensor, kind: str) -> Tensor:
    """Mean absolute (``"l1"``) or mean squared (``"l2"``, also called ``"mse"``) difference over all entries."""
    difference = output - target
    return difference.abs().mean() if kind == "l1" else difference.square().mean()
