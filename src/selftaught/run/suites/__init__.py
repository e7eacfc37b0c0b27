"""Suites: protocols with a folder layout, classes or layers of their own, beside an untrained encoder and raw input.

A suite is a file here with a function that `@suite(PROTOCOL)` declares; nothing else lists them.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.run.suites._suite import SUITES

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["NAMES", "evaluate", "usual"]

for _file in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    if not _file.startswith("_"):
        import_module(f"{__name__}.{_file}")

NAMES = tuple(sorted(SUITES))
"""Protocols that are run here."""


def evaluate(names: Sequence[str], bench: Bench) -> dict[str, dict[str, Result]]:
    """Run suites; per protocol the Results of ``this``, ``random`` and ``raw``.

    Raises:
        UserError: series; a folder, file or column that is missing; what the protocol refuses.
    """
    wanted = next((name for name in names if SUITES[name].images_only), None)
    if bench.method.modality != "image" and wanted is not None:
        raise UserError(f"--protocol {wanted} is for images, this run's method takes series")
    return {name: SUITES[name].function(bench) for name in names}


def usual(bench: Bench) -> dict[str, dict[str, Result]]:
    """The suites that belong to every evaluation of the method; one that the data don't admit is told and left out."""
    found: dict[str, dict[str, Result]] = {}
    for name in bench.method.judged_by:
        try:
            found |= evaluate([name], bench)
        except UserError as error:
            bench.say(f"not judged by {name}: {error}")
    return found
