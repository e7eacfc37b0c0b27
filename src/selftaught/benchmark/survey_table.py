"""The survey's table: a row per method with quality, cost and needs, and the differences between branches."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import catalog
from selftaught.benchmark._cell import UNTRAINED
from selftaught.evaluation import Number, paired_difference
from selftaught.evaluation.result import extent

PROTOCOLS = ("knn", "linear", "finetune")
FROZEN = ("knn", "linear")
_PAIRS = (("view-based", "masked"), ("hybrid", "masked"), ("view-based", "pretext"), ("masked", "pretext"))
"""Differences that the survey's pattern is about."""


@dataclass(frozen=True)
class Row:
    """One method.

    Args:
        name: slug, or "untrained".
        branch: of the taxonomy; "" beside it.
        scores: protocol -> accuracy, one value per seed.
        cost: ``seconds``, ``megabytes`` of a step, ``views``, ``parameters``; empty for an untrained encoder.
        steps: optimiser steps.
        images: samples seen times views.
        uses: what it takes besides the encoder.
    """

    name: str
    branch: str
    scores: Mapping[str, Number]
    cost: Mapping[str, float]
    steps: int
    images: int
    uses: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As stored."""
        return {
            "name": self.name, "branch": self.branch, "steps": self.steps, "images": self.images,
            "uses": list(self.uses), "cost": dict(self.cost),
            "scores": {protocol: list(number.values) for protocol, number in self.scores.items()},
        }  # fmt: skip


def rows_of(
    records: Sequence[Mapping[str, Any]],
    costs: Mapping[str, Mapping[str, float]],
    steps: Mapping[str, int],
    batch_size: int,
) -> list[Row]:
    """A row per method in the order of the records, what is beside the branches last.

    Args:
        records: a grid's.
        costs: slug -> cost of a step.
        steps: slug -> steps.
        batch_size: samples of a step.
    """
    values: dict[str, dict[str, dict[int, float]]] = {}
    for record in records:
        if "accuracy" in record["numbers"]:
            found = values.setdefault(record["name"], {}).setdefault(record["protocol"], {})
            found[int(record["seed"])] = float(record["numbers"]["accuracy"])
    rows = []
    for name, protocols in values.items():
        scores = {
            p: Number.of([v for _, v in sorted(protocols[p].items())], within=extent("accuracy"))
            for p in PROTOCOLS
            if p in protocols
        }
        beside = name in (UNTRAINED, "supervised")
        card = None if name == UNTRAINED else catalog.card(name)
        cost = costs.get(name, {})
        done = steps.get(name, 0)
        images = round(done * batch_size * cost.get("views", 0))
        uses = ("labels",) if name == "supervised" else card.uses if card is not None else ()
        branch = "" if beside or card is None else catalog.branch_of(card)
        rows.append(Row(name, branch, scores, cost, done, images, uses))
    order = list(dict.fromkeys(row.branch for row in rows if row.branch))
    return sorted(rows, key=lambda row: order.index(row.branch) if row.branch else len(order))


def branch_differences(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Protocol -> pair of branches -> difference of the branches' means, paired by seed.

    Beside the protocols stands ``"gain by fine-tuning"``: fine-tuned minus linear accuracy of a branch. If it is
    smaller for view-based methods than for masked ones, the pattern is there even where neither wins outright.
    """
    found: dict[str, dict[str, Any]] = {}
    means = {protocol: _branch_means(rows, protocol) for protocol in PROTOCOLS}
    gains = {
        branch: means["finetune"][branch] - values
        for branch, values in means["linear"].items()
        if branch in means["finetune"] and len(means["finetune"][branch]) == len(values)
    }
    for protocol, branches in {**means, "gain by fine-tuning": gains}.items():
        for one, other in _PAIRS:
            if one in branches and other in branches and len(branches[one]) == len(branches[other]):
                difference = paired_difference(branches[one], branches[other]).to_dict()
                found.setdefault(protocol, {})[f"{one} minus {other}"] = difference
    return found


def _branch_means(rows: Sequence[Row], protocol: str) -> dict[str, np.ndarray]:
    """Branch -> mean over its methods, one value per seed; methods that lack a seed are left out."""
    values: dict[str, list[tuple[float, ...]]] = {}
    for row in rows:
        if row.branch and protocol in row.scores:
            values.setdefault(row.branch, []).append(row.scores[protocol].values)
    longest = max((len(v) for several in values.values() for v in several), default=0)
    whole = {branch: [v for v in several if len(v) == longest] for branch, several in values.items()}
    return {branch: np.mean(several, axis=0) for branch, several in whole.items() if several}


def markdown(rows: Sequence[Row]) -> str:
    """The table for a page or a terminal; accuracies in per cent with the interval's half width."""
    head = ("branch", "method", "k-NN", "linear", "fine-tuned", "s/step", "MB/step", "steps", "images x views", "uses")
    lines = ["| " + " | ".join(head) + " |", "|---|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    for row in rows:
        scores = [_percent(row.scores.get(protocol)) for protocol in PROTOCOLS]
        cost = [f"{row.cost['seconds']:.3f}", f"{row.cost['megabytes']:.0f}"] if row.cost else ["", ""]
        budget = [f"{row.steps:,}", f"{row.images:,}"] if row.cost else ["", ""]
        cells = [row.branch or "beside", f"`{row.name}`", *scores, *cost, *budget, ", ".join(row.uses)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _percent(number: Number | None) -> str:
    if number is None:
        return ""
    if number.low is None or number.high is None:
        return f"{100 * number.mean:.1f}"
    if math.isclose(number.high - number.mean, number.mean - number.low, abs_tol=1e-9):
        return f"{100 * number.mean:.1f} ± {100 * (number.high - number.mean):.1f}"
    return f"{100 * number.mean:.1f} [{100 * number.low:.1f}, {100 * number.high:.1f}]"  # cut at 0 or 100


def write_csv_table(rows: Sequence[Row], path: Path) -> None:
    """The table as CSV: a line per method, one column per protocol and seed."""
    from selftaught.run.layout import write_text

    seeds = max((len(n.values) for row in rows for n in row.scores.values()), default=0)
    columns = [f"{protocol}_{seed}" for protocol in PROTOCOLS for seed in range(seeds)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    costs = ("seconds", "megabytes", "views", "parameters", "encoder")
    writer.writerow(["branch", "method", *columns, *costs, "steps", "images", "uses"])
    for row in rows:
        scores = [
            value
            for protocol in PROTOCOLS
            for value in [*(row.scores[protocol].values if protocol in row.scores else ()), *[""] * seeds][:seeds]
        ]
        cost = [row.cost.get(name, "") for name in costs]
        writer.writerow([row.branch, row.name, *scores, *cost, row.steps, row.images, " ".join(row.uses)])
    write_text(path, buffer.getvalue())
