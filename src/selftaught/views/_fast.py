"""Whether views are compiled here."""

from __future__ import annotations

import functools
from importlib import import_module
from importlib.util import find_spec
from typing import Any


@functools.cache
def kernels(module: str = "degradations._kernels") -> Any:
    """A module of compiled kernels of this room where Numba is installed (the extra ``kernels``), else None.

    NumPy and OpenCV serve without it.
    """
    return None if find_spec("numba") is None else import_module(f"selftaught.views.{module}")
