"""From a validated run to what the template needs: one function per section, ``None`` when nothing is to be shown.

Here are the order of the page and the sections about the run itself; numbers are in `selftaught.report.scores`, samples
in `selftaught.report.samples`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

from selftaught._words import plural
from selftaught.report import curves, samples, scores
from selftaught.report.images import data_uri
from selftaught.report.lines import both_widths
from selftaught.report.schema import Section
from selftaught.report.suspects import has_suspects
from selftaught.report.text import NOTHING, duration, flatten, number, sentence
from selftaught.report.timeline import timeline

_MOST_SKIPPED = 200


def training(run: Mapping[str, Any]) -> Section:
    """Per stage loss and online scores, then small charts of every term, the learning rate and the throughput."""
    shown = []
    seen = run.get("labels_seen")
    for name, metrics in curves.by_stage(run.get("metrics") or {}):
        large = []
        loss = curves.loss_chart(metrics)
        if loss is not None:
            said = "Total loss." + (" Line: mean; band: lowest and highest value nearby." if loss.lines[0].low else "")
            said += " It should fall and flatten; a sudden drop to a constant is collapse."
            large.append({"svg": both_widths(loss, (560, 300)), "caption": said})
        for score, title in curves.SCORES.items():
            chart = curves.score_chart(metrics, score)
            if chart is not None:
                said = f"Accuracy of a {title} on embeddings of held-out samples, during training."
                said += " Training learnt from labels, of other samples." if seen else " Training saw no label."
                large.append({"svg": both_widths(chart, (560, 300)), "caption": said})
        small = [
            {"svg": both_widths(chart, (352, 190), (262, 170), "fits tiny"), "caption": chart.y_label}
            for chart in curves.small_charts(metrics)
        ]
        if large or small:
            shown.append({"name": name, "large": large, "small": small})
    return {"stages": shown} if shown else None


def listings(run: Mapping[str, Any]) -> Section:
    """Tables to read and sort, with a picture to each row where there is one."""
    shown = []
    for item in run.get("listings") or []:
        given = item.get("pictures") or [None] * len(item.get("rows") or [])
        rows = [
            {
                "uri": data_uri(picture) if picture else "",
                "cells": [
                    cell if isinstance(cell, str) else number(cell, 0 if isinstance(cell, Integral) else 3)
                    for cell in row
                ],
            }
            for picture, row in zip(given, item.get("rows") or [], strict=True)
        ]
        if rows:
            head = {"title": item.get("title") or "", "note": sentence(item.get("note") or "")}
            own = {"columns": item["columns"], "rows": rows, "pictured": any(r["uri"] for r in rows)}
            shown.append(head | own | {"corrected": _corrected(item)})
    return {"tables": shown} if shown else None


def _corrected(item: Mapping[str, Any]) -> Section:
    """What the page needs to write corrected labels down: names and labels as they are, and the classes."""
    if not item.get("classes"):
        return None
    return {"classes": item["classes"], "rows": [row[:2] for row in item["rows"]]}


def skipped(run: Mapping[str, Any]) -> Section:
    """Samples that could not be used, by reason."""
    rows = run.get("skipped")
    if rows is None:
        return None
    reasons = Counter(row.get("reason") or "no reason given" for row in rows)
    total = run.get("samples")
    of = f" of {number(total)}" if total else ""
    share = f" ({len(rows) / total:.2%})" if total and rows else ""
    said = f"{plural(len(rows), 'sample')}{of}{share} could not be used." if rows else "Every sample could be used."
    return {
        "said": said,
        "reasons": reasons.most_common(),
        "rows": rows[:_MOST_SKIPPED],
        "hidden": max(0, len(rows) - _MOST_SKIPPED),
    }


def recipe(run: Mapping[str, Any]) -> Section:
    """How to repeat the run: command, stages, configuration, environment, notes."""
    config, environment = flatten(run.get("config") or {}), flatten(run.get("environment") or {})
    stages = [
        {
            "name": stage.get("name") or f"stage {i + 1}",
            "steps": number(stage["steps"]) if stage.get("steps") is not None else NOTHING,
            "epochs": number(stage["epochs"]) if stage.get("epochs") is not None else NOTHING,
            "time": duration(stage.get("seconds")),
            "note": stage.get("note") or "",
        }
        for i, stage in enumerate(run.get("stages") or [])
    ]
    found = {
        "command": run.get("command") or "",
        "stages": stages,
        "config": config,
        "environment": environment,
        "notes": run.get("notes") or [],
    }
    return found if any(found.values()) else None


#: Section name, heading in the page, and what builds it; in the order of the page.
ALL: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Section]], ...] = (
    ("label_efficiency", "Label efficiency", scores.label_efficiency),
    ("restoration", "Before and after", samples.restoration),
    ("frames", "Frame by frame", samples.frames),
    ("tasks", "What is kept of earlier tasks", scores.tasks),
    ("protocols", "Evaluation", scores.protocols),
    ("map", "Embedding map", samples.embedding_map),
    ("neighbours", "Nearest neighbours", samples.neighbours),
    ("timeline", "Timeline", timeline),
    ("listings", "Tables", listings),
    ("confusion", "Confusion matrix", scores.confusion),
    ("series", "Windows", samples.series),
    ("clouds", "Features in space", samples.clouds),
    ("views", "What the model saw", samples.views),
    ("pictures", "What the model makes of it", samples.pictures),
    ("training", "Training", training),
    ("spectrum", "Spectrum", scores.spectrum),
    ("skipped", "Skipped samples", skipped),
    ("recipe", "How to repeat it", recipe),
)


#: Where nothing has a label, what can be looked at comes before the numbers.
_UNLABELLED_FIRST = ("restoration", "frames", "neighbours", "timeline", "map", "series", "clouds", "views", "pictures")


def ordered(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sections that have something to show, in the order of the page."""
    built = [{"key": key, "title": heading, "data": make(run)} for key, heading, make in ALL]
    shown = [section for section in built if section["data"] is not None]
    if has_suspects(run):  # what one came for
        for section in shown:
            if section["key"] == "listings":
                section["title"] = "Suspicious labels"
        return sorted(shown, key=lambda section: section["key"] != "listings")
    if labelled(run):
        return shown
    first = {key: place for place, key in enumerate(_UNLABELLED_FIRST)}
    return sorted(shown, key=lambda section: first.get(section["key"], len(first)))


def labelled(run: Mapping[str, Any]) -> bool:
    """Whether any part of the run speaks of classes."""
    spoken = (run.get("map") or {}).get("label") or (run.get("label_efficiency") or {}).get("curves")
    return bool(spoken) or any(query.get("label") is not None for query in run.get("neighbours") or [])
