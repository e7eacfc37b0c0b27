"""selftaught: learning without labels.

>>> import selftaught
>>> run = selftaught.train("dcl", data="photos")          # level 1: a run
>>> from selftaught import methods, DataModule            # level 2: a LightningModule and its data
>>> from selftaught import objectives, views              # level 3: plain functions
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "train": "selftaught.run",
    "load": "selftaught.run",
    "compare": "selftaught.run",
    "rehearse": "selftaught.run",
    "Run": "selftaught.run",
    "curate": "selftaught.run.curating",
    "DataModule": "selftaught.engine.loader",
    "UserError": "selftaught.errors",
}
_MODULES = ("catalog", "data", "evaluation", "methods", "networks", "objectives", "report", "views")

__all__ = ["__version__", *_NAMES, *_MODULES]

if TYPE_CHECKING:
    from selftaught import catalog, data, evaluation, methods, networks, objectives, report, views
    from selftaught.engine.loader import DataModule as DataModule
    from selftaught.errors import UserError as UserError
    from selftaught.run import Run as Run
    from selftaught.run import compare as compare
    from selftaught.run import load as load
    from selftaught.run import rehearse as rehearse
    from selftaught.run import train as train
    from selftaught.run.curating import curate as curate


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    if name in _MODULES:
        return import_module(f"selftaught.{name}")
    raise AttributeError(f"module 'selftaught' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
