"""Loops that Numba compiles, where the extra ``kernels`` brings it; import this only where one runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selftaught.errors import require

__all__ = ["compiled", "numba"]

numba: Any = require("numba", "kernels")

_LOOSE = {"reassoc", "contract", "arcp", "nsz"}  # what isn't a number stays none


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled at its first call and kept beside the source or in the user's cache, if either can be written."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _LOOSE}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
