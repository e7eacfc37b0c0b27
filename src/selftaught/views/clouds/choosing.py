"""Which points of a cloud are seen: one per voxel, those near a place, a share by chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views.clouds._of_points import XYZ, OfPoints, generator
from selftaught.views.operation import Op, checked_probability, executor, freeze

__all__ = ["CropCloud", "DropPoints", "OnePerVoxel"]


@dataclasses.dataclass(frozen=True, repr=False)
class OnePerVoxel(OfPoints, Op):
    """One point by chance of every occupied voxel.

    Args:
        size: edge of a voxel in metres (0.02).

    Raises:
        UserError: a size that isn't above 0.
    """

    size: float = 0.02

    columns: ClassVar = ("seed",)
    draws: ClassVar = 1

    def __post_init__(self) -> None:
        if not self.size > 0:
            raise UserError(f"OnePerVoxel: size is an edge in metres above 0, got {self.size!r}")


@executor(OnePerVoxel, "points")
def _one_per_voxel(x: np.ndarray, op: OnePerVoxel, values: Sequence[float]) -> np.ndarray:
    grid = np.floor(x[:, XYZ].astype(np.float64) / op.size).astype(np.int64)
    grid -= grid.min(0)
    sides = grid.max(0) + 1
    keys = (grid[:, 0] * sides[1] + grid[:, 1]) * sides[2] + grid[:, 2]
    order = generator(values[0]).permutation(len(x))
    first = np.unique(keys[order], return_index=True)[1]
    return x[np.sort(order[first])]


@dataclasses.dataclass(frozen=True, repr=False)
class CropCloud(OfPoints, Op):
    """The points nearest to one of them that is drawn.

    Args:
        points: how many at most.

    Raises:
        UserError: a number below 1.
    """

    points: int

    columns: ClassVar = ("centre",)
    draws: ClassVar = 1

    def __post_init__(self) -> None:
        if isinstance(self.points, bool) or not isinstance(self.points, int) or self.points < 1:
            raise UserError(f"CropCloud: points is a whole number from 1 on, got {self.points!r}")


@executor(CropCloud, "points")
def _crop(x: np.ndarray, op: CropCloud, values: Sequence[float]) -> np.ndarray:
    if len(x) <= op.points:
        return x
    far = ((x[:, XYZ] - x[int(values[0] * len(x)), XYZ]) ** 2).sum(1)
    return x[np.sort(np.argpartition(far, op.points - 1)[: op.points])]


@dataclasses.dataclass(frozen=True, repr=False)
class DropPoints(OfPoints, Op):
    """A share of the points left out.

    Args:
        share: of the points (0.2), below 1.
        p: chance that any are (0.2).

    Raises:
        UserError: a number outside its range.
    """

    share: float = 0.2
    p: float = 0.2

    columns: ClassVar = ("apply", "seed")
    draws: ClassVar = 2

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise UserError(f"DropPoints: share lies in [0, 1), got {self.share!r}")
        freeze(self, p=checked_probability("DropPoints", self.p))


@executor(DropPoints, "points")
def _drop(x: np.ndarray, op: DropPoints, values: Any) -> np.ndarray:
    if values[0] >= op.p:
        return x
    keep = max(1, round(len(x) * (1 - op.share)))
    return x[np.sort(generator(values[1]).permutation(len(x))[:keep])]
