"""Suites: protocols with a folder layout, classes or layers of their own, beside an untrained encoder and raw input.

A suite is a file here with a function that `@suite(PROTOCOL)` declares; nothing else lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from selftaught._rooms import room_modules
from selftaught.data.kinds import kind_of
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.run.suites._suite import SUITES

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["NAMES", "evaluate", "usual"]

_FILES = dict(room_modules(__name__, __path__))

NAMES = tuple(sorted(SUITES))
"""Protocols that are run here."""


def evaluate(names: Sequence[str], bench: Bench) -> dict[str, dict[str, Result]]:
    """Run suites; per protocol the Results of ``this``, ``random`` and ``raw``.

    Raises:
        UserError: a protocol of images for a run of something else; a folder, file or column that is missing; what the
            protocol refuses.
    """
    wanted = next((name for name in names if SUITES[name].images_only), None)
    kind = kind_of(bench.method.modality)
    if wanted is not None and not kind.picture:
        raise UserError(f"--protocol {wanted} is for images, this run is one of {kind.plural}")
    suites = [SUITES[name] for name in names]
    given = [() if suite.needs is None else (suite.needs(bench),) for suite in suites]  # before any of them runs
    return {suite.name: suite.function(bench, *parts) for suite, parts in zip(suites, given, strict=True)}


def usual(bench: Bench) -> dict[str, dict[str, Result]]:
    """The suites that belong to every evaluation of the method; one that the data don't admit is told and left out."""
    found: dict[str, dict[str, Result]] = {}
    for name in bench.method.judged_by:
        try:
            found |= evaluate([name], bench)
        except UserError as error:
            bench.say(f"not judged by {name}: {error}")
    return found
