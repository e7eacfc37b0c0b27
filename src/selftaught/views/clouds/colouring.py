"""The colours of a cloud, from 0 to 255: stretched, shifted, jittered, left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views.clouds._of_points import COLOUR, OfPoints, generator
from selftaught.views.operation import Op, checked_probability, executor, freeze

__all__ = ["CloudContrast", "CloudGrey", "JitterColours", "ShiftColours"]


@dataclasses.dataclass(frozen=True, repr=False)
class CloudContrast(OfPoints, Op):
    """Every channel stretched to 0..255, and blended with what it was by a drawn share.

    Args:
        p: chance (0.2).

    Raises:
        UserError: a chance outside [0, 1].
    """

    p: float = 0.2

    columns: ClassVar = ("apply", "share")
    draws: ClassVar = 2

    def __post_init__(self) -> None:
        freeze(self, p=checked_probability("CloudContrast", self.p))


@executor(CloudContrast, "points")
def _contrast(x: np.ndarray, op: CloudContrast, values: Sequence[float]) -> np.ndarray:
    if values[0] >= op.p:
        return x
    colour = x[:, COLOUR]
    low, high = colour.min(0), colour.max(0)
    stretched = np.where(high > low, (colour - low) * (255 / np.maximum(high - low, 1e-6)), colour)
    return _with_colour(x, colour + values[1] * (stretched - colour))


@dataclasses.dataclass(frozen=True, repr=False)
class ShiftColours(OfPoints, Op):
    """Each channel of the whole cloud moved by one drawn amount.

    Args:
        most: as a share of 255 (0.05).
        p: chance (0.95).

    Raises:
        UserError: a number outside [0, 1].
    """

    most: float = 0.05
    p: float = 0.95

    columns: ClassVar = ("apply", "red", "green", "blue")
    draws: ClassVar = 4

    def __post_init__(self) -> None:
        freeze(self, p=checked_probability("ShiftColours", self.p))
        if not 0 <= self.most <= 1:
            raise UserError(f"ShiftColours: most is a share of 255 in [0, 1], got {self.most!r}")


@executor(ShiftColours, "points")
def _shift(x: np.ndarray, op: ShiftColours, values: Sequence[float]) -> np.ndarray:
    if values[0] >= op.p:
        return x
    return _with_colour(x, x[:, COLOUR] + (2 * np.array(values[1:]) - 1) * 255 * op.most)


@dataclasses.dataclass(frozen=True, repr=False)
class JitterColours(OfPoints, Op):
    """Every point's colour moved by a little of its own.

    Args:
        sigma: deviation as a share of 255 (0.05).
        p: chance (0.95).

    Raises:
        UserError: a negative deviation, a chance outside [0, 1].
    """

    sigma: float = 0.05
    p: float = 0.95

    columns: ClassVar = ("apply", "seed")
    draws: ClassVar = 2

    def __post_init__(self) -> None:
        freeze(self, p=checked_probability("JitterColours", self.p))
        if not self.sigma >= 0:
            raise UserError(f"JitterColours: sigma is a share of 255 from 0 on, got {self.sigma!r}")


@executor(JitterColours, "points")
def _jitter(x: np.ndarray, op: JitterColours, values: Sequence[float]) -> np.ndarray:
    if values[0] >= op.p:
        return x
    return _with_colour(x, x[:, COLOUR] + generator(values[1]).normal(0, 255 * op.sigma, (len(x), 3)))


@dataclasses.dataclass(frozen=True, repr=False)
class CloudGrey(OfPoints, Op):
    """All colours replaced by their mean over the channels.

    Args:
        p: chance (0.2).

    Raises:
        UserError: a chance outside [0, 1].
    """

    p: float = 0.2

    columns: ClassVar = ("apply",)
    draws: ClassVar = 1

    def __post_init__(self) -> None:
        freeze(self, p=checked_probability("CloudGrey", self.p))


@executor(CloudGrey, "points")
def _grey(x: np.ndarray, op: CloudGrey, values: Sequence[float]) -> np.ndarray:
    if values[0] >= op.p:
        return x
    return _with_colour(x, np.repeat(x[:, COLOUR].mean(1, keepdims=True), 3, 1))


def _with_colour(x: np.ndarray, colour: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[:, COLOUR] = np.clip(colour, 0, 255)
    return x
