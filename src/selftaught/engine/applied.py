"""What a method may say of ``apply`` (options of its own, files that a result depends on) and of ``export``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["Applicable"]


class Applicable:
    """The part of a method that ``apply`` and ``export`` ask; each with a default.

    Attributes:
        applied_with: see :class:`selftaught.engine.method.Method`.
    """

    applied_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @contextlib.contextmanager
    def applied_as(self, options: Mapping[str, Any], own: bool) -> Iterator[None]:
        """The method as its options of ``apply`` ask for, as long as the context lasts; as it is.

        Args:
            options: those that were given, by the names of ``applied_with``.
            own: whether it meets the data that the run learnt from.
        """
        yield

    def files_beside(self, source: Any, i: int) -> list[Path]:
        """Files that the result of sample ``i`` depends on besides its own; when one changes, it is made again.

        Called within :meth:`applied_as`; by default there are none.
        """
        return []

    @property
    def untraceable(self) -> str:
        """Why ``export --format onnx`` can't write the deliverable, and what can be done; empty where it can."""
        return ""
