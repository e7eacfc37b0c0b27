"""The words that all parts of a grid share."""

from __future__ import annotations

from typing import Any

Cell = dict[str, Any]
UNTRAINED = "untrained"
HOST = "simclr"
"""The method in whose clothes an untrained encoder runs: one step at learning rate 0."""
