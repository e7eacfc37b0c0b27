"""The formats that `open_source` reads, a file each (or one for a few that belong together).

A new format is a new file here that lists its `Format` in ``FORMATS``; nothing else has to know it.
"""

from __future__ import annotations

from selftaught._rooms import room_modules
from selftaught.data.formats._format import ANY, Build, Format

__all__ = ["ANY", "FORMATS", "Build", "Format"]


def _found() -> tuple[Format, ...]:
    """The formats of every file of this folder that doesn't begin with ``_``, by their rank."""
    formats: list[Format] = []
    for _, module in room_modules(__name__, __path__):
        formats += module.FORMATS
    return tuple(sorted(formats, key=lambda f: f.rank))


FORMATS = _found()
"""Every format, those of the lowest rank first."""
