"""One view of a recipe: what it is made of, and by what."""

from __future__ import annotations

import dataclasses

from selftaught.errors import UserError
from selftaught.views.pipeline import Pipeline

__all__ = ["View"]


@dataclasses.dataclass(frozen=True)
class View:
    """One view of a recipe.

    Args:
        name: its key in the batch; no dots (facts are ``"<view>.<fact>"``). A name that begins with ``_`` is a step on
            the way to others and stays out of the batch.
        of: an earlier view's name, or else a field's.
        pipeline: what is done; operations alone are taken as well (default: nothing).
        space: views with the same name here share every geometric draw; "" (default) shares with none.
        scale: how many times finer this field's grid is than the coarsest one of its space: boxes are drawn on that one
            and multiplied, so that they cover the same ground to the pixel.
    """

    name: str
    of: str
    pipeline: Pipeline = dataclasses.field(default_factory=lambda: Pipeline(()))
    space: str = ""
    scale: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.pipeline, Pipeline):
            object.__setattr__(self, "pipeline", Pipeline(self.pipeline, name=self.name))
        if not self.name or not isinstance(self.name, str) or "." in self.name:
            raise UserError(f"View: a name is a text without dots, got {self.name!r}")
        if not isinstance(self.scale, int) or self.scale < 1:
            raise UserError(f"View {self.name}: scale is a whole number, 1 or more, got {self.scale!r}")
        if self.scale > 1 and not self.space:
            raise UserError(f"View {self.name}: scale={self.scale} needs the name of a space that it shares")
