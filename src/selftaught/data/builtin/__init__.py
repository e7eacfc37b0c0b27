"""The built-in data sets, a file each: what it gives in ``ENTRIES`` is there by name, no list is edited."""

from __future__ import annotations

from selftaught._rooms import room_modules
from selftaught.data.builtin._entry import Entry

__all__ = ["BUILT_IN", "Entry"]


def _found() -> dict[str, Entry]:
    """Every entry of every file, in the order of their names.

    Raises:
        ImportError: a file without ``ENTRIES``, or a name that two files give.
    """
    found: dict[str, Entry] = {}
    for file, module in room_modules(__name__, __path__):
        entries = getattr(module, "ENTRIES", None)
        if entries is None:
            raise ImportError(f"{__name__}.{file} gives no ENTRIES")
        for entry in entries:
            if entry.name in found:
                raise ImportError(f"{file}: there is a built-in data set {entry.name!r} already")
            found[entry.name] = entry
    return dict(sorted(found.items()))


BUILT_IN = _found()
"""Name -> what the set says of itself."""
