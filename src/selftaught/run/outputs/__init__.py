"""What methods deliver, a file for each kind: how it is applied, judged, shown and exported.

A method names its kind (``output = "weights per sample"``); the kind is the class in the file of that name
(``weights_per_sample.py``). A new kind is a new file: no list names them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

from selftaught._rooms import room_files
from selftaught.errors import UserError
from selftaught.run.outputs._base import Judged, Output, Page

__all__ = ["Judged", "Output", "Page", "kinds", "of"]


def kinds() -> list[str]:
    """Names of all kinds of output."""
    return [name.replace("_", " ") for name in room_files(__path__)]


@cache
def of(name: str) -> Output:
    """The kind of output of that name, as a method's ``output`` has it.

    Raises:
        UserError: there is no such kind.
    """
    if name.replace("-", " ") not in kinds():
        raise UserError(f"no kind of output {name!r}; there are {', '.join(kinds())}")
    module = import_module(f"{__name__}.{re.sub('[- ]', '_', name)}")
    found = [getattr(module, public) for public in module.__all__]
    (kind,) = [one for one in found if isinstance(one, type) and issubclass(one, Output)]
    return kind()
