"""Sections of the page that are numbers: protocols, curves over labels, tasks, the spectrum, mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftaught.report import curves, plates
from selftaught.report.lines import both_widths, legend
from selftaught.report.schema import Section
from selftaught.report.tables import ROLES, best_of, protocol_rows, roles_of
from selftaught.report.text import NOTHING, decimals, direction, interval, known, number, sentence

__all__ = ["confusion", "label_efficiency", "protocols", "spectrum", "tasks"]


def label_efficiency(run: Mapping[str, Any]) -> Section:
    """The label-efficiency figure and its numbers."""
    section = run.get("label_efficiency") or {}
    chart = curves.label_chart(section)
    if chart is None:
        return None
    places = decimals([v for line in chart.lines for v in known(line.y)])
    rows = []
    lines = chart.lines[::-1]  # this encoder first: where a screen cuts a table off, it is not the one that is cut
    for x in sorted({x for line in lines for x in line.x}):
        cells: list[dict[str, Any]] = []
        for line in lines:
            i = line.x.index(x) if x in line.x else None
            mean = line.y[i] if i is not None else None
            ends = (line.low[i], line.high[i]) if i is not None and line.low and line.high else (None, None)
            cells.append({"text": number(mean, places), "spread": interval(*ends, places), "mean": mean})
        means = {str(k): round(c["mean"], places) for k, c in enumerate(cells) if c["mean"] is not None}
        best = best_of(means, direction(section.get("metric") or "accuracy"))
        for k, cell in enumerate(cells):
            cell["best"] = str(k) == best
        rows.append({"x": number(x), "cells": cells})
    return {
        "svg": both_widths(chart, (700, 400), (352, 300)),
        "legend": legend(chart),
        "heads": [line.name for line in lines],
        "rows": rows,
        "note": sentence(section.get("note") or ""),
        "metric": section.get("metric") or "accuracy",
        "intervals": any(line.low for line in chart.lines),
        "chance": number(section["chance"]) if section.get("chance") is not None else "",
        "seen": bool(run.get("labels_seen")),
    }


_SIGNS = {"this": "●", "original": "◆", "retrained": "✚", "random": "■", "raw": "▲"}
_RESTORERS = {"this": "restored", "random": "untrained model", "raw": "input"}


def protocols(run: Mapping[str, Any]) -> Section:
    """The protocol table, grouped by protocol."""
    rows = protocol_rows(run.get("protocols") or [])
    if not rows:
        return None
    notes = {p.get("name") or "protocol": _note(p) for p in run.get("protocols") or []}
    groups: dict[str, list[dict[str, Any]]] = {}
    roles = roles_of(rows)
    for row in rows:
        strip = plates.strip([(role, row.cells[role]) for role in roles])
        groups.setdefault(row.protocol, []).append({"row": row, "strip": strip})
    restores = bool(run.get("restoration") or run.get("frames"))
    called = curves.ROLE_NAMES | (_RESTORERS if restores else {})
    lead, missing = "Only the distance from the untrained encoder and from raw input says what was learnt.", "neither"
    if restores:
        lead = "What was restored, and its input as it was. Only the distance between the two says what was learnt."
        missing = "the input"
    elif "original" in roles:
        lead = "The distance from the original model, which this one began from, says what was changed."
        missing = "no other model"
    if any(cell for row in rows for role, cell in row.cells.items() if role != "this"):
        missing = ""
    return {
        "groups": [{"name": n, "note": notes.get(n, ""), "rows": r} for n, r in groups.items()],
        "roles": [(role, called[role]) for role in roles],
        "lead": lead,
        "missing": f"Here {missing} was{' not' if restores else ''} measured." if missing else "",
        "signs": ", ".join(f"{_SIGNS[role]} is {called[role]}" for role in reversed(roles)),
    }


def _note(protocol: Mapping[str, Any]) -> str:
    return protocol.get("note") or (protocol.get("this") or {}).get("note") or ""


def tasks(run: Mapping[str, Any]) -> Section:
    """What is still known of earlier tasks: a table with a row after each task, and its curves."""
    section = run.get("tasks") or {}
    chart = curves.tasks_chart(section)
    if chart is None:
        return None
    names = [str(name) for name in section["names"]]
    rows = [
        {"name": name, "cells": [number(value, 3) for value in row] + [""] * (len(names) - len(row))}
        for name, row in zip(names, section["rows"], strict=False)
    ]
    found = {"svg": both_widths(chart, (560, 300)), "legend": legend(chart), "names": names, "rows": rows}
    return found | {"metric": section.get("metric") or "", "note": sentence(section.get("note") or "")}


def spectrum(run: Mapping[str, Any]) -> Section:
    """The singular-value spectrum with the effective ranks in words."""
    section = run.get("spectrum") or {}
    chart = curves.spectrum_chart(section)
    if chart is None:
        return None
    ranks = []
    for role in reversed(ROLES):
        rank = curves.effective_rank(section.get(role))
        if rank is not None:
            of = len(known(section.get(role)))
            ranks.append({"name": curves.ROLE_NAMES[role], "rank": number(rank, 1), "of": number(of)})
    return {"svg": both_widths(chart, (560, 300)), "legend": legend(chart), "ranks": ranks}


def confusion(run: Mapping[str, Any]) -> Section:
    """The confusion matrix with its most frequent mistakes in words."""
    plate = plates.confusion_plate((run.get("series") or {}).get("confusion") or run.get("confusion") or {})
    if plate is None:
        return None
    mistakes = [
        {"true": a, "taken": b, "share": f"{share:.0%}" if share >= 0.01 else "< 1%"} for a, b, share in plate.worst
    ]
    accuracy = number(plate.accuracy, 3) if plate.accuracy is not None else NOTHING
    return {"plate": plate, "mistakes": mistakes, "accuracy": accuracy, "total": number(plate.total)}
