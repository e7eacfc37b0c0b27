"""The claims, a file for each method: what its paper says, and the smallest fair comparison that could show it.

A file is named after its method's slug and gives ``claim() -> Claim``; where something holds exactly, an identity, a
bound or a limit of the public objectives, also ``fact() -> Fact``. A new claim is a new file here; no list names it.

Every arm of a claim has the same data, budget, seeds and optimiser; only what the claim is about differs. Learning
rates were not tuned for either arm: both take the method's laptop preset.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from selftaught._rooms import room_files
from selftaught.claims._comparison import Arm, Claim, Start, fact_text
from selftaught.claims._facts import Fact
from selftaught.errors import UserError

__all__ = ["Arm", "Claim", "Fact", "Start", "claim_of", "claimed", "fact_of", "fact_text"]


def claimed() -> list[str]:
    """Slugs of the methods that have a claim, sorted."""
    return [name.replace("_", "-") for name in room_files(__path__)]


def claim_of(slug: str) -> Claim:
    """The claim of a method.

    Raises:
        UserError: it has none.
    """
    if slug not in claimed():
        raise UserError(f"--method {slug}: there are claims for {', '.join(claimed())}")
    made: Claim = import_module(f"{__name__}.{slug.replace('-', '_')}").claim()
    return made


def fact_of(slug: str) -> Callable[[], Fact] | None:
    """What computes the fact of a method; None where it has none.

    Raises:
        UserError: the method has no claim.
    """
    claim_of(slug)
    return getattr(import_module(f"{__name__}.{slug.replace('-', '_')}"), "fact", None)
