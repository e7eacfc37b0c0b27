"""The kinds of fields, one file each: what a sample of it looks like, the words for it, how samples become a batch.

A new kind is a new file here, with its subclass of `Kind` in the file's ``__all__``; nothing else lists them.
"""

from __future__ import annotations

from typing import Any

from selftaught._rooms import room_modules
from selftaught.data.kinds._kind import Kind
from selftaught.data.kinds.camera import Camera
from selftaught.data.spec import near
from selftaught.errors import UserError

__all__ = ["KINDS", "Camera", "Kind", "kind_of"]


def _found() -> dict[str, Kind]:
    """Every kind by its name, out of the files of this folder that don't begin with ``_``."""
    kinds: dict[str, Kind] = {}
    for _, module in room_modules(__name__, __path__):
        public: list[Any] = [getattr(module, name) for name in module.__all__]
        kinds |= {c.name: c() for c in public if isinstance(c, type) and issubclass(c, Kind)}
    return kinds


KINDS = _found()
"""Every kind by its name."""


def kind_of(name: str) -> Kind:
    """The kind of that name.

    Raises:
        UserError: there is none.
    """
    try:
        return KINDS[name]
    except KeyError:
        raise UserError(f"no kind of data {name!r}{near(name, KINDS)}; there are {', '.join(KINDS)}") from None
