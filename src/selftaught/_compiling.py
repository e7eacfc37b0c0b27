"""Loops that Numba compiles, where the extra ``kernels`` brings it; import this only where one runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from selftaught.errors import require

__all__ = ["compiled", "fitted", "inlined", "numba"]

numba: Any = require("numba", "kernels")

_LOOSE = {"reassoc", "contract", "arcp", "nsz"}  # what isn't a number stays none


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled at its first call and kept beside the source or in the user's cache, if either can be written."""
    return _compiled(function)


def inlined(function: Callable[..., Any]) -> Any:
    """The same, written out wherever it is called, so that what is constant there is constant in it."""
    return _compiled(function, inline="always")


def _compiled(function: Callable[..., Any], **more: Any) -> Any:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _LOOSE, **more}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)


def fitted(function: Callable[[Any], Any], low: float, high: float, degree: int) -> tuple[np.float32, ...]:
    """A polynomial through a function's values at Chebyshev's nodes, its lowest coefficient first."""
    nodes = (np.cos(np.pi * (np.arange(64) + 0.5) / 64) + 1) / 2 * (high - low) + low
    fit = np.polynomial.Chebyshev.fit(nodes, function(nodes), degree, domain=[low, high])
    return tuple(fit.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32))
