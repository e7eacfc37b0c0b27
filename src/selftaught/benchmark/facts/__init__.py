"""What holds exactly about a method, whatever its small experiment could show.

A claim's experiment says what was seen at its size. The fact beside it belongs to the mathematics that the claim rests
on: an identity, a bound or a limit of the public objectives, evaluated in float64 on random embeddings within seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from selftaught.benchmark.facts import contrastive, others
from selftaught.benchmark.facts._common import Fact

FACTS: dict[str, Callable[[], Fact]] = contrastive.FACTS | others.FACTS
"""By the slug of the method."""

__all__ = ["FACTS", "Fact"]
