"""Options of a method: merged, and checked by name, type, range and choice."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from selftaught.errors import UserError

__all__ = ["configure"]

C = TypeVar("C")


def configure(kind: type[C], config: C | Mapping[str, Any] | None, options: dict[str, Any]) -> C:
    """Merge single options into a config; values are checked by the config itself, as it is made.

    Raises:
        UserError: names the option and what it may be; or the config is another method's.
    """
    if isinstance(config, Mapping):
        options = {**config, **options}
        config = None
    if config is not None and not isinstance(config, kind):
        raise UserError(f"config={_name(type(config))}; it may be: {_name(kind)}")
    fields = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in options:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(sorted(fields))}"
            raise UserError(f"no option {name!r} in this method: {hint}")
    merged: C = dataclasses.replace(config if config is not None else kind(), **options)  # type: ignore[type-var]
    return merged


def _name(kind: type[object]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
