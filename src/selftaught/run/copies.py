"""Degraded copies as work that a place belongs to, as what a run makes is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from selftaught._words import typed
from selftaught.data import Source
from selftaught.run.applying import Job

__all__ = ["Copies"]


@dataclass(frozen=True)
class Copies(Job):
    """Copies of samples that no method makes; ``options`` holds all that they depend on besides the input."""

    another: ClassVar[str] = "another folder"
    writer: ClassVar[str] = "degrade"

    @classmethod
    def of(
        cls,
        recipe: str,
        options: dict[str, Any],
        source: Source,
        out: Path,
        *,
        given: Any,
        overwrite: bool,
        say: Callable[[int], None],
    ) -> Copies:
        """Copies by a recipe; see `Job` for the rest."""
        none: Any = None
        called = f"degrade {recipe}"
        return cls(none, source, out, run=called, options=options, given=given, overwrite=overwrite, say=say)

    @property
    def maker(self) -> str:
        """The command."""
        return "degrade"

    @property
    def called(self) -> str:
        """The folder as it was given: no option names it."""
        return typed(self.out)

    def beside(self, i: int) -> list[Path]:
        """None: what a recipe reads besides is told in ``options``."""
        return []

    def key(self) -> dict[str, Any]:
        """What makes two calls the same work."""
        return {
            "output": "copies",
            "method": self.maker,
            "weights": "",
            "options": self.options,
            "input": self.source.fingerprint(),
            "origin": self.source.origin(),
            "samples": len(self.source),
        }
