"""One view of a recipe: what it is made of, and by what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

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
        pipeline: what is done; operations alone are taken as well (default: nothing). It is
            named like the view.
        space: views with the same name here share every geometric draw; "" (default) shares with none.
        scale: how many times finer this field's grid is than the coarsest one of its space: boxes are drawn on that one
            and multiplied, so that they cover the same ground to the pixel.
    """

    name: str
    of: str
    pipeline: Any = ()
    space: str = ""
    scale: int = 1

    def __post_init__(self) -> None:
        pipeline = self.pipeline if isinstance(self.pipeline, Pipeline) else Pipeline(self.pipeline)
        object.__setattr__(self, "pipeline", dataclasses.replace(pipeline, name=self.name))
        if not self.name or not isinstance(self.name, str) or "." in self.name:
            raise UserError(f"View: a name is a text without dots, got {self.name!r}")
        if not isinstance(self.of, str) or not isinstance(self.space, str):
            raise UserError(f"View {self.name}: of and space are names, got {self.of!r} and {self.space!r}")
        if isinstance(self.scale, bool) or not isinstance(self.scale, int) or self.scale < 1:
            raise UserError(f"View {self.name}: scale is a whole number, 1 or more, got {self.scale!r}")
        if self.scale > 1 and not self.space:
            raise UserError(f"View {self.name}: scale={self.scale} needs the name of a space that it shares")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON write them; :meth:`from_dict` reads them back."""
        plain = self.pipeline.to_dict() | {"name": self.name, "of": self.of}
        plain |= {"space": self.space} if self.space else {}
        return plain | ({"scale": self.scale} if self.scale > 1 else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> View:
        """Read what :meth:`to_dict` wrote; without "ops" the field stays as it is.

        Raises:
            UserError: a key that is no view's, or a value that makes no sense.
        """
        known = ("name", "of", "ops", "per_frame", "space", "scale")
        if not isinstance(data, Mapping) or "name" not in data or "of" not in data or set(data) - set(known):
            got = ", ".join(map(str, data)) if isinstance(data, Mapping) else data
            raise UserError(f"View: a mapping with 'name', 'of' and, if you like, {', '.join(known[2:])}; got {got}")
        pipeline = Pipeline.from_dict(
            {"ops": []} | {key: data[key] for key in ("name", "ops", "per_frame") if key in data}
        )
        return cls(data["name"], data["of"], pipeline, data.get("space", ""), data.get("scale", 1))
