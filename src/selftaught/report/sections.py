"""From a validated run to what the template needs: one function per section, ``None`` when nothing is to be shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from selftaught.report import curves, plates, restored
from selftaught.report.images import data_uri, dimensions
from selftaught.report.lines import both_widths, legend
from selftaught.report.tables import protocol_rows
from selftaught.report.text import NOTHING, decimals, duration, flatten, interval, known, number, plural, sentence

Section = dict[str, Any] | None

_MOST_SKIPPED = 200


def training(run: Mapping[str, Any]) -> Section:
    """Loss and online k-NN, then small charts of every term, the learning rate and the throughput."""
    metrics = run.get("metrics") or {}
    large = []
    loss, knn = curves.loss_chart(metrics), curves.knn_chart(metrics)
    if loss is not None:
        said = "Total loss." + (" Line: mean; band: lowest and highest value nearby." if loss.lines[0].low else "")
        said += " It should fall and flatten; a sudden drop to a constant is collapse."
        large.append({"svg": both_widths(loss, (560, 300)), "caption": said})
    if knn is not None:
        said = (
            "Accuracy of a k-NN on embeddings of held-out samples, during training. The labels were not used to train."
        )
        large.append({"svg": both_widths(knn, (560, 300)), "caption": said})
    small = [
        {"svg": both_widths(chart, (352, 190), (262, 170), "fits tiny"), "caption": chart.y_label}
        for chart in curves.small_charts(metrics)
    ]
    if not large and not small:
        return None
    return {"large": large, "small": small}


def label_efficiency(run: Mapping[str, Any]) -> Section:
    """The label-efficiency figure and its numbers."""
    section = run.get("label_efficiency") or {}
    chart = curves.label_chart(section)
    if chart is None:
        return None
    places = decimals([v for line in chart.lines for v in known(line.y)])
    rows = []
    for x in sorted({x for line in chart.lines for x in line.x}):
        cells = []
        for line in chart.lines:
            i = line.x.index(x) if x in line.x else None
            mean = line.y[i] if i is not None else None
            ends = (line.low[i], line.high[i]) if i is not None and line.low and line.high else (None, None)
            cells.append({"text": number(mean, places), "spread": interval(*ends, places), "this": line.role == "this"})
        rows.append({"x": number(x), "cells": cells})
    return {
        "svg": both_widths(chart, (700, 400), (352, 300)),
        "legend": legend(chart),
        "heads": [line.name for line in chart.lines],
        "rows": rows,
        "note": sentence(section.get("note") or ""),
        "metric": section.get("metric") or "accuracy",
        "intervals": any(line.low for line in chart.lines),
        "chance": number(section["chance"]) if section.get("chance") is not None else "",
    }


def protocols(run: Mapping[str, Any]) -> Section:
    """The protocol table, grouped by protocol."""
    rows = protocol_rows(run.get("protocols") or [])
    if not rows:
        return None
    notes = {p.get("name") or "protocol": _note(p) for p in run.get("protocols") or []}
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        strip = plates.strip([(role, row.cells[role]) for role in ("raw", "random", "this")])
        groups.setdefault(row.protocol, []).append({"row": row, "strip": strip})
    alone = not any(row.cells["random"] or row.cells["raw"] for row in rows)
    return {"groups": [{"name": n, "note": notes.get(n, ""), "rows": r} for n, r in groups.items()], "alone": alone}


def _note(protocol: Mapping[str, Any]) -> str:
    return protocol.get("note") or (protocol.get("this") or {}).get("note") or ""


def embedding_map(run: Mapping[str, Any]) -> Section:
    """The map with its legend and thumbnails."""
    section = run.get("map") or {}
    plate = plates.map_plate(section)
    if plate is None:
        return None
    thumbs = section.get("thumbs")
    sheet = None
    if thumbs:
        width, height = dimensions(thumbs["image"])
        sheet = {"uri": data_uri(thumbs["image"]), "width": width, "height": height, "tile": thumbs["tile"]}
    many = len(plate.legend) > 1
    return {
        "plate": plate,
        "data": plates.payload(plate.data),
        "sheet": sheet,
        "legend": plate.legend if many else [],
        "search": len(plate.legend) > 24,
        "method": section.get("method") or "two dimensions",
    }


def neighbours(run: Mapping[str, Any]) -> Section:
    """Queries with their nearest neighbours, and how often the classes agree."""
    rows = []
    agree = of = 0
    for query in run.get("neighbours") or []:
        hits = []
        for hit in query.get("hits") or []:
            both = query.get("label") is not None and hit.get("label") is not None
            same = both and query["label"] == hit["label"]
            agree, of = agree + bool(same), of + both
            near = hit.get("similarity")
            hits.append(
                {
                    "uri": data_uri(hit["png"]),
                    "label": hit.get("label") or "",
                    "state": ("same" if same else "other") if both else "unknown",
                    "similarity": number(near, 2) if near is not None else "",
                    "name": hit.get("name") or "",
                }
            )
        label = query.get("label") or ""
        rows.append({"uri": data_uri(query["query"]), "label": label, "name": query.get("name") or "", "hits": hits})
    if not rows:
        return None
    said = f"{number(agree)} of {number(of)} neighbours shown ({agree / of:.0%}) have the query's class." if of else ""
    return {"rows": rows, "said": said, "most": max(len(row["hits"]) for row in rows)}


def views(run: Mapping[str, Any]) -> Section:
    """Rows of pictures as the model saw them."""
    section = run.get("views") or {}
    rows = [row for row in section.get("rows") or [] if row]
    if not rows:
        return None
    most = max(len(row) for row in rows)
    columns = section.get("columns") or ["original", *(f"view {i}" for i in range(1, most))]
    names = section.get("names") or [""] * len(section["rows"])
    named = [name for name, row in zip(names, section["rows"], strict=True) if row]
    plates_ = [{"name": n, "uris": [data_uri(p) for p in row]} for n, row in zip(named, rows, strict=True)]
    return {"columns": columns, "rows": plates_, "count": most, "note": sentence(section.get("note") or "")}


def spectrum(run: Mapping[str, Any]) -> Section:
    """The singular-value spectrum with the effective ranks in words."""
    section = run.get("spectrum") or {}
    chart = curves.spectrum_chart(section)
    if chart is None:
        return None
    ranks = []
    for role in ("this", "random", "raw"):
        rank = curves.effective_rank(section.get(role))
        if rank is not None:
            of = len(known(section.get(role)))
            ranks.append({"name": curves.ROLE_NAMES[role], "rank": number(rank, 1), "of": number(of)})
    return {"svg": both_widths(chart, (560, 300)), "legend": legend(chart), "ranks": ranks}


def restoration(run: Mapping[str, Any]) -> Section:
    """The before/after pictures."""
    items = run.get("restoration") or []
    return {"items": [restored.plate(item) for item in items]} if items else None


def series(run: Mapping[str, Any]) -> Section:
    """Windows of sensor series."""
    windows = (run.get("series") or {}).get("windows") or []
    spans = plates.channel_spans(windows)
    shown = []
    for i, window in enumerate(windows):
        svg = plates.window_plate(window, spans)
        if svg is not None:
            label, predicted = window.get("label"), window.get("predicted")
            state = "" if predicted is None or label is None else "same" if predicted == label else "other"
            name = window.get("name") or f"window {i + 1}"
            shown.append({"svg": svg, "name": name, "label": label or "", "predicted": predicted or "", "state": state})
    most = max((len(w.get("channels") or []) for w in windows), default=0)
    hidden = max(0, most - plates.MOST_CHANNELS)
    return {"windows": shown, "hidden": hidden} if shown else None


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
    ("label_efficiency", "Label efficiency", label_efficiency),
    ("restoration", "Before and after", restoration),
    ("protocols", "Evaluation", protocols),
    ("map", "Embedding map", embedding_map),
    ("neighbours", "Nearest neighbours", neighbours),
    ("confusion", "Confusion matrix", confusion),
    ("series", "Windows", series),
    ("views", "What the model saw", views),
    ("training", "Training", training),
    ("spectrum", "Spectrum", spectrum),
    ("skipped", "Skipped samples", skipped),
    ("recipe", "How to repeat it", recipe),
)
