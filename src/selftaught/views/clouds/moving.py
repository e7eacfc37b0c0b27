"""Clouds moved: turned, scaled, mirrored, jittered, centred. Normals turn along; further columns stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views.clouds._of_points import NORMAL, XYZ, OfPoints, generator
from selftaught.views.operation import Op, checked_probability, checked_range, executor, freeze

__all__ = ["CentreCloud", "FlipCloud", "JitterPlaces", "KeepPlace", "ScaleCloud", "TurnCloud"]


@dataclasses.dataclass(frozen=True, repr=False)
class KeepPlace(OfPoints, Op):
    """x y z once more behind the last column, where no other operation changes them: where a point truly is."""


@executor(KeepPlace, "points")
def _keep_place(x: np.ndarray, op: KeepPlace, values: Any) -> np.ndarray:
    return np.concatenate((x, x[:, XYZ]), axis=1)


@dataclasses.dataclass(frozen=True, repr=False)
class CentreCloud(OfPoints, Op):
    """The middle of the cloud's box at x = y = 0, its lowest point at z = 0."""


@executor(CentreCloud, "points")
def _centre(x: np.ndarray, op: CentreCloud, values: Any) -> np.ndarray:
    low, high = x[:, XYZ].min(0), x[:, XYZ].max(0)
    x = x.copy()
    x[:, XYZ] -= np.array(((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]), dtype=x.dtype)
    return x


@dataclasses.dataclass(frozen=True, repr=False)
class TurnCloud(OfPoints, Op):
    """A turn about one axis through the origin.

    Args:
        degrees: largest angle to either side (180: any).
        axis: "z" (default), "x" or "y".
        p: chance of a turn.

    Raises:
        UserError: an angle outside 0..180, another axis, a chance outside [0, 1].
    """

    degrees: float = 180.0
    axis: str = "z"
    p: float = 1.0

    columns: ClassVar = ("apply", "angle")
    draws: ClassVar = 2

    def __post_init__(self) -> None:
        if self.axis not in ("x", "y", "z") or not 0 <= self.degrees <= 180:
            raise UserError(f"TurnCloud: axis x, y or z and 0 to 180 degrees, got {self.axis!r}, {self.degrees!r}")
        freeze(self, p=checked_probability("TurnCloud", self.p), degrees=float(self.degrees))


@executor(TurnCloud, "points")
def _turn(x: np.ndarray, op: TurnCloud, values: Sequence[float]) -> np.ndarray:
    if values[0] >= op.p:
        return x
    angle = np.radians((2 * values[1] - 1) * op.degrees)
    k = "xyz".index(op.axis)
    a, b = (k + 1) % 3, (k + 2) % 3
    turn = np.eye(3)
    turn[a, a] = turn[b, b] = np.cos(angle)
    turn[b, a] = np.sin(angle)
    turn[a, b] = -turn[b, a]
    return _mapped(x, turn, turn)


@dataclasses.dataclass(frozen=True, repr=False)
class ScaleCloud(OfPoints, Op):
    """All places times one factor.

    Args:
        factor: (low, high), default (0.9, 1.1).

    Raises:
        UserError: no two numbers above 0.
    """

    factor: tuple[float, float] = (0.9, 1.1)

    columns: ClassVar = ("factor",)
    draws: ClassVar = 1

    def __post_init__(self) -> None:
        freeze(self, factor=checked_range("ScaleCloud", "factor", self.factor, 1e-3, 1e3))


@executor(ScaleCloud, "points")
def _scale(x: np.ndarray, op: ScaleCloud, values: Sequence[float]) -> np.ndarray:
    low, high = op.factor
    return _mapped(x, np.eye(3) * (low + (high - low) * values[0]), np.eye(3))


@dataclasses.dataclass(frozen=True, repr=False)
class FlipCloud(OfPoints, Op):
    """x and y mirrored, each with its own chance.

    Args:
        p: default 0.5.

    Raises:
        UserError: a chance outside [0, 1].
    """

    p: float = 0.5

    columns: ClassVar = ("x", "y")
    draws: ClassVar = 2

    def __post_init__(self) -> None:
        freeze(self, p=checked_probability("FlipCloud", self.p))


@executor(FlipCloud, "points")
def _flip(x: np.ndarray, op: FlipCloud, values: Sequence[float]) -> np.ndarray:
    mirror = np.diag([-1.0 if v < op.p else 1.0 for v in values] + [1.0])
    return _mapped(x, mirror, mirror)


@dataclasses.dataclass(frozen=True, repr=False)
class JitterPlaces(OfPoints, Op):
    """Every point moved by a little of its own.

    Args:
        sigma: deviation in metres along each axis (0.005).
        clip: largest move along an axis (0.02).

    Raises:
        UserError: a negative number.
    """

    sigma: float = 0.005
    clip: float = 0.02

    columns: ClassVar = ("seed",)
    draws: ClassVar = 1

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and self.clip >= 0):
            raise UserError(f"JitterPlaces: sigma and clip are metres from 0 on, got {self.sigma!r}, {self.clip!r}")


@executor(JitterPlaces, "points")
def _jitter(x: np.ndarray, op: JitterPlaces, values: Sequence[float]) -> np.ndarray:
    moves = np.clip(generator(values[0]).normal(0, op.sigma, (len(x), 3)), -op.clip, op.clip)
    x = x.copy()
    x[:, XYZ] += moves.astype(x.dtype)
    return x


def _mapped(x: np.ndarray, places: np.ndarray, normals: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[:, XYZ] = x[:, XYZ] @ places.T.astype(x.dtype)
    x[:, NORMAL] = x[:, NORMAL] @ normals.T.astype(x.dtype)
    return x
