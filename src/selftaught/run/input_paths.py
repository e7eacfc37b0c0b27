"""Which files an input that a user named is read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selftaught._paths import expanded
from selftaught.data.spec import several

__all__ = ["input_paths"]


def input_paths(given: Any) -> list[Path]:
    """Files and folders that an input named by path is read from; what is no path has none."""
    found_in = given if isinstance(given, list | tuple) else several(given) if isinstance(given, str) else [given]
    if not all(isinstance(one, str | Path) for one in found_in):
        return []
    found = []
    for one in found_in:
        text = str(one)
        path = expanded(text if expanded(text).exists() else text.partition("?")[0])
        while any(sign in str(path) for sign in "*?["):
            path = path.parent
        if path.exists():
            found.append(path.resolve())
    return found
