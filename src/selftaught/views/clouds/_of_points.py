"""What operations on clouds share: they take clouds alone, and draw a seed for what differs from point to point."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError

XYZ, COLOUR, NORMAL = slice(0, 3), slice(3, 6), slice(6, 9)
"""Columns of a cloud (P, 9+F): place, colour from 0 to 255, normal."""


class OfPoints:
    """Mixed into operations on clouds (P, 9+F); their uniform numbers are their parameters."""

    draws: ClassVar[int]

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """The uniform numbers are the columns; how many points are left shows when it is done.

        Raises:
            UserError: another kind of field, or a cloud without colour and normal.
        """
        if kind != "points":
            raise UserError(f"{type(self).__name__}: takes points, not {kind}")
        if len(shape) != 2 or shape[1] < 9:
            raise UserError(f"{type(self).__name__}: a cloud is (P, 9+F), got {'x'.join(map(str, shape))}")
        return tuple(u), shape


def generator(u: float) -> np.random.Generator:
    """The generator that a uniform number stands for."""
    return np.random.default_rng(int(u * 2.0**53))
