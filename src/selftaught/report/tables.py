"""Numbers by protocol: this encoder beside an untrained one, raw input, and the model that it began from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftaught.report.text import decimals, direction, interval, known, number

ROLES = ("raw", "random", "original", "retrained", "this")
"""What is judged: "original" is the model that a changed one began from, "retrained" one that learnt anew."""


@dataclass(frozen=True)
class Row:
    """One metric of one protocol.

    Attributes:
        protocol: name of the protocol.
        metric: name of the metric.
        cells: role (one of `ROLES`) to its number, ``None`` where it was not measured.
        better: "high", "low" or "none".
        places: decimals that the row is shown with.
    """

    protocol: str
    metric: str
    cells: dict[str, dict[str, Any] | None]
    better: str
    places: int

    @property
    def label(self) -> str:
        """The metric for reading."""
        return self.metric.replace("_", " ")

    @property
    def best(self) -> str | None:
        """The role with the best mean as shown; ``None`` for a tie, a lone value or a metric without a better side."""
        means = {role: round(cell["mean"], self.places) for role, cell in self.cells.items() if cell}
        return best_of(means, self.better)

    def text(self, role: str) -> str:
        """The mean of a role."""
        cell = self.cells[role]
        return number(cell["mean"], self.places) if cell else "not measured"

    def spread(self, role: str) -> str:
        """The interval of a role, empty where there is none."""
        cell = self.cells[role]
        return interval(cell.get("low"), cell.get("high"), self.places) if cell else ""


def best_of(means: Mapping[str, float], better: str) -> str | None:
    """The key of the best value; ``None`` for fewer than two, a tie, or a metric without a better side."""
    if len(means) < 2 or better == "none":
        return None
    best = (min if better == "low" else max)(means.values())
    leaders = [key for key, value in means.items() if value == best]
    return leaders[0] if len(leaders) == 1 else None


def protocol_rows(protocols: Sequence[Mapping[str, Any]]) -> list[Row]:
    """All protocols as rows of the table, in the order given; metrics without any number are left out."""
    rows = []
    for protocol in protocols:
        columns = {role: _numbers(protocol, role) for role in ROLES}
        metrics = list(dict.fromkeys(key for role in reversed(ROLES) for key in columns[role]))
        for metric in metrics:
            cells = {role: _cell(columns[role].get(metric)) for role in ROLES}
            if any(cells.values()):
                better = (protocol.get("better") or {}).get(metric) or direction(metric)
                places = decimals(
                    [v for c in cells.values() if c for v in known([c["mean"], c.get("low"), c.get("high")])]
                )
                rows.append(Row(protocol.get("name") or "protocol", metric, cells, better, places))
    return rows


def roles_of(rows: Sequence[Row]) -> list[str]:
    """The columns that a table of these rows has: what was measured, and always the usual baselines where nothing else
    is beside this encoder.
    """
    measured = [role for role in ROLES if any(row.cells[role] for row in rows)]
    return measured if len(measured) > 1 else ["raw", "random", "this"]


def _numbers(protocol: Mapping[str, Any], role: str) -> dict[str, Any]:
    own = (protocol.get("this") or protocol).get("numbers") or {}
    if role == "this":
        return {name: value for name, value in own.items() if _of_input(name, own) is None}
    given = (protocol.get(role) or {}).get("numbers") or {}
    inputs = {base: value for name, value in own.items() if (base := _of_input(name, own))} if role == "raw" else {}
    return inputs | given


def _of_input(name: str, numbers: Mapping[str, Any]) -> str | None:
    """What ``psnr_input`` is to ``psnr``: the metric that the untouched input was measured by, if that is one."""
    base = name.removesuffix("_input")
    return base if base != name and base in numbers else None


def _cell(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not value:
        return None
    mean = value.get("mean")
    if mean is None:
        single = known(value.get("values"))
        mean = sum(single) / len(single) if single else None
    return {**value, "mean": mean} if mean is not None else None
