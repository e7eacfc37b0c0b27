"""What a suite is, and how a file of this room declares one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selftaught.evaluation import Result

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["SUITES", "Suite", "suite"]

Judging = Callable[..., dict[str, Result]]


@dataclass(frozen=True)
class Suite:
    """How a run is judged by one protocol.

    Args:
        name: the protocol's, as on the command line.
        function: bench, and what ``needs`` gave, -> Results of ``this``, ``random`` and ``raw``, those that there are.
        images_only: it looks at pictures; runs of other data are refused before it is called.
        needs: opens what the protocol judges and refuses a bench that lacks it, before any of several protocols runs;
            None: the function itself does.
    """

    name: str
    function: Judging
    images_only: bool
    needs: Callable[[Bench], object] | None = None


SUITES: dict[str, Suite] = {}
"""By their names, those that the room's files have declared."""


def suite(
    name: str, *, images_only: bool = True, needs: Callable[[Bench], object] | None = None
) -> Callable[[Judging], Judging]:
    """Declare a function of this room as a suite.

    Args:
        name: of the protocol.
        images_only: see :class:`Suite`.
        needs: see :class:`Suite`.

    Raises:
        ValueError: two suites of one name.
    """

    def declare(function: Judging) -> Judging:
        if name in SUITES:
            raise ValueError(f"two suites are called {name!r}")
        SUITES[name] = Suite(name, function, images_only, needs)
        return function

    return declare
