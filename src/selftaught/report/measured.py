"""The numbers of one protocol, as the sentences that a page leads with ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["Words", "compared", "ends", "numbers_of", "place_of"]

Words = tuple[str, str, Literal["gain", "mixed", "none", "unknown"]]
"""A sentence, what it means, and its tone."""


def numbers_of(run: Mapping[str, Any], protocol: str, role: str) -> dict[str, Mapping[str, Any]]:
    """The numbers of a contender by name, those with a mean; none where the page has no such protocol or contender."""
    found: Mapping[str, Any] = next((p for p in run.get("protocols") or [] if p.get("name") == protocol), {})
    numbers = (found.get(role) or {}).get("numbers") or {}
    return {name: value for name, value in numbers.items() if value.get("mean") is not None}


def place_of(run: Mapping[str, Any], protocol: str, rather: str = "") -> str:
    """What a page calls a protocol: its name, else the name with the other data that it was measured on at last
    ("refinement on clinic/"); where some of these places have a number called ``rather``, one of those.
    """
    names = [str(p.get("name") or "") for p in run.get("protocols") or []]
    names = [name for name in names if rather in numbers_of(run, name, "this")] or names if rather else names
    if protocol in names:
        return protocol
    return next((name for name in reversed(names) if name.startswith(f"{protocol} on ")), protocol)


def ends(value: Mapping[str, Any]) -> tuple[float, float]:
    """A number's interval; where it has none, its mean twice."""
    low, high = (value["mean"] if value.get(end) is None else value[end] for end in ("low", "high"))
    return float(low), float(high)


def compared(this: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """1 where a number is above another by more than the intervals, -1 where below, else 0."""
    (low, high), (other_low, other_high) = ends(this), ends(other)
    return 1 if low > other_high else -1 if high < other_low else 0
