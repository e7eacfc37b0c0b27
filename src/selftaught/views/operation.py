"""What the operations of a view have in common: their contract, their checks, their few ways to draw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError

Pair = tuple[float, float]
Drawn = tuple[tuple[Any, ...], Any, Any]


class Op:
    """One operation of a pipeline. ``columns`` name its parameters, ``draws`` counts the uniform numbers it uses."""

    columns: ClassVar[tuple[str, ...]] = ()
    draws: ClassVar[int] = 0
    any_dtype: ClassVar[bool] = False

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Turn ``draws`` uniform numbers in [0, 1) into ``(columns, height, width)``, the last two after the op."""
        return (), height, width

    @property
    def enough(self) -> int | None:
        """Shorter side of an image, in pixels, from which on more pixels show nothing new; None: all are needed."""
        return None

    def __repr__(self) -> str:
        shown = []
        for place, field in enumerate(dataclasses.fields(self)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING and place == 0:
                shown.append(plain(value))
            elif value != field.default:
                shown.append(f"{field.name}={plain(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def plain(value: Any) -> str:
    """A value as a reader writes it, four digits at most."""
    if isinstance(value, tuple):
        return "(" + ", ".join(f"{item:.4g}" for item in value) + ")"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def checked_range(op: str, name: str, value: Any, low: float, high: float) -> Pair:
    """An ordered pair within [low, high], or a clear error."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise UserError(f"{op}: {name} must be two numbers (low, high), got {value!r}")
    pair = (float(value[0]), float(value[1]))
    if not (low <= pair[0] <= pair[1] <= high):
        raise UserError(f"{op}: {name} must satisfy {low:g} <= low <= high <= {high:g}, got {value!r}")
    return pair


def checked_probability(op: str, p: Any) -> float:
    """A number in [0, 1], or a clear error."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
        raise UserError(f"{op}: p is a probability between 0 and 1, got {p!r}")
    return float(p)


def checked_pair(op: str, size: Any) -> tuple[int, int]:
    """(height, width) in pixels; one number means a square."""
    pair = (size, size) if isinstance(size, Integral) else tuple(size) if isinstance(size, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(side, Integral) and int(side) >= 1 for side in pair):
        raise UserError(f"{op}: size must be a positive number of pixels or (height, width), got {size!r}")
    return int(pair[0]), int(pair[1])


def checked_size(op: str, size: Any) -> int | tuple[int, int]:
    """A checked size, written as one number when it is square."""
    height, width = checked_pair(op, size)
    return height if height == width else (height, width)


def freeze(op: Op, **values: Any) -> None:
    """Set checked values on an operation that is being made."""
    for name, value in values.items():
        object.__setattr__(op, name, value)


def require_at_least(op: str, size: tuple[int, int], height: Any, width: Any) -> None:
    """Refuse images smaller than the crop, naming the first one's size."""
    small = np.logical_or(np.asarray(height) < size[0], np.asarray(width) < size[1])
    if small.any():
        at = int(np.argmax(small)) if small.ndim else 0
        shape, crop = f"{np.atleast_1d(height)[at]}x{np.atleast_1d(width)[at]}", f"{size[0]}x{size[1]}"
        raise UserError(
            f"{op}: the image is {shape}, smaller than the crop {crop}; take a smaller size or resize first"
        )


def batched(u: Any) -> bool:
    """Whether uniform numbers came for a batch."""
    return isinstance(u, np.ndarray)


def below(u: Any, p: float) -> Any:
    """1.0 where the uniform number falls below p."""
    return (u < p).astype(np.float64) if isinstance(u, np.ndarray) else float(u < p)


def whole(u: Any, room: Any) -> Any:
    """A whole number drawn evenly from 0..room."""
    return np.floor(u * (room + 1)) if isinstance(u, np.ndarray) else math.floor(u * (room + 1))
