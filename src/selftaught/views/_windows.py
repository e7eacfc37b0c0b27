"""Windows of pictures that are not in the cache, compiled by Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught._compiling import compiled

__all__ = ["copied"]

_AHEAD, _LINE = np.uint64(8), np.uint64(64)
"""Rows that memory is asked for before they are needed; bytes that it gives at a time."""


@compiled
def copied(x: NDArray[Any], out: NDArray[Any]) -> Any:
    """Copy rows that lie apart. A byte of every line of a later row is read meanwhile, so that it is on its way.

    A processor asks for the next lines by itself only as long as they follow one another, and these end with each row:
    a window of 110 kB takes 16 us so, where NumPy's copy takes 30 (AMD EPYC).

    Args:
        x: (H, n) uint8, rows anywhere in memory.
        out: (H, n) uint8 in one block.

    Returns:
        What was read ahead, without a meaning: it would not be read if nobody asked for it.
    """
    height, count, seen = np.uint64(x.shape[0]), np.uint64(x.shape[1]), np.uint8(0)
    for i in range(height):
        if i + _AHEAD < height:
            for k in range(np.uint64(0), count, _LINE):
                seen ^= x[i + _AHEAD, k]
        for k in range(count):
            out[i, k] = x[i, k]
    return seen
