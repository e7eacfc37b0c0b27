"""Options of a method: merged, and checked by name and choice."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from typing import Any, Literal, TypeVar

from selftaught.errors import UserError

C = TypeVar("C")


def configure(kind: type[C], config: C | None, options: dict[str, Any]) -> C:
    """Merge single options into a config and check names and choices.

    Raises:
        UserError: names the option and what it may be.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in options:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(sorted(fields))}"
            raise UserError(f"no option {name!r} in this method: {hint}")
    merged: Any = dataclasses.replace(config if config is not None else kind(), **options)  # type: ignore[type-var]
    for name, hint_type in typing.get_type_hints(kind).items():
        if typing.get_origin(hint_type) is Literal and getattr(merged, name) not in typing.get_args(hint_type):
            choices = ", ".join(map(str, typing.get_args(hint_type)))
            raise UserError(f"option {name} is {getattr(merged, name)!r}; it may be: {choices}")
    return merged
