"""Whether degradations are compiled here."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Any


@functools.cache
def kernels() -> Any:
    """The compiled kernels where Numba is installed (the extra ``kernels``), else None: NumPy and OpenCV serve."""
    if find_spec("numba") is None:
        return None
    from selftaught.views.degradations import _kernels

    return _kernels
