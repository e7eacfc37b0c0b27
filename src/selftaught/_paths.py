"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["expanded"]


def expanded(path: str | Path) -> Path:
    """``~`` and ``~user`` in a path, as the shell takes them; a user whom nobody knows stays as written.

    (`pathlib.Path.expanduser` raises for such a one, where "no such file" says all.)
    """
    return Path(os.path.expanduser(path))
