"""What operations on texts share: they take texts alone."""

from __future__ import annotations

from typing import Any

from selftaught.errors import UserError

SEEDS = 2.0**53
"""A uniform number times this is a seed."""


class OfTexts:
    """Mixed into operations on texts: a string, or a tuple of several, has no height and no width."""

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """The uniform numbers are the columns.

        Raises:
            UserError: another kind of field.
        """
        if kind != "text":
            raise UserError(f"{type(self).__name__}: takes text, not {kind}")
        return tuple(u), ()
