"""From a validated run to what the template needs: one function per section, ``None`` when nothing is to be shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

from selftaught._words import plural
from selftaught.report import curves, plates, restored
from selftaught.report.clouds import CLASS_COLOURS, packed_cloud
from selftaught.report.images import data_uri, dimensions
from selftaught.report.lines import both_widths, legend
from selftaught.report.suspects import has_suspects
from selftaught.report.tables import ROLES, best_of, protocol_rows, roles_of
from selftaught.report.text import (
    NOTHING,
    decimals,
    direction,
    duration,
    flatten,
    interval,
    known,
    number,
    sentence,
)
from selftaught.report.timeline import timeline

Section = dict[str, Any] | None

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
        "labelled": bool(section.get("label")),
        "seen": bool(section.get("seen")),
        "named": bool(section.get("names")),
    }


def neighbours(run: Mapping[str, Any]) -> Section:
    """Queries with their nearest neighbours, and how often the classes agree."""
    rows = []
    for query in run.get("neighbours") or []:
        label = query.get("label") or ""
        row = {
            "uri": data_uri(query["query"]),
            "label": label,
            "name": query.get("name") or "",
            "point": query.get("point"),
            "frames": query.get("frames"),
        }
        row |= {key: [_hit(query, hit) for hit in query.get(key) or []] for key in ("hits", "untrained")}
        rows.append(row)
    if not rows:
        return None
    agreed = {key: _agreement([hit["state"] for row in rows for hit in row[key]]) for key in ("hits", "untrained")}
    said = f"{agreed['hits']} of the neighbours shown have the query's class" if agreed["hits"] else ""
    if said:
        said += f"; {agreed['untrained']} of those of an untrained encoder." if agreed["untrained"] else "."
    beside = any(row["untrained"] for row in rows)
    most = max(len(row[key]) for row in rows for key in ("hits", "untrained"))
    return {
        "rows": rows,
        "said": said,
        "most": most,
        "labelled": bool(agreed["hits"]),
        "beside": beside,
        "films": any(row["frames"] for row in rows),
        "narrow": _columns(most),
    }


def _hit(query: Mapping[str, Any], hit: Mapping[str, Any]) -> dict[str, Any]:
    """One neighbour for the template; whether it has the query's class, where both are known."""
    near = hit.get("similarity")
    both = query.get("label") is not None and hit.get("label") is not None
    return {
        "uri": data_uri(hit["png"]),
        "label": hit.get("label") or "",
        "state": ("same" if query["label"] == hit["label"] else "other") if both else "unknown",
        "similarity": number(near, 2) if near is not None else "",
        "name": hit.get("name") or "",
        "point": hit.get("point"),
        "frames": hit.get("frames"),
    }


def _columns(count: int) -> int:
    """To how many columns a narrow screen lays out tiles so that they fill their rows, if any of 5, 4 and 3 does."""
    return count if count <= 5 else next((n for n in (5, 4, 3) if count % n == 0), 4)


def _agreement(states: Sequence[str]) -> str:
    """``12 of 40 (30%)``; nothing where no class is known."""
    of = sum(state != "unknown" for state in states)
    agree = sum(state == "same" for state in states)
    return f"{number(agree)} of {number(of)} ({agree / of:.0%})" if of else ""


def views(run: Mapping[str, Any]) -> Section:
    """Rows of pictures as the model saw them."""
    return _picture_rows(run.get("views") or {})


def pictures(run: Mapping[str, Any]) -> Section:
    """Rows of pictures as the model made them: what it saw, what it restored, what it was to restore."""
    return _picture_rows(run.get("pictures") or {})


def _picture_rows(section: Mapping[str, Any]) -> Section:
    rows = [row for row in section.get("rows") or [] if row]
    if not rows:
        return None
    most = max(len(row) for row in rows)
    columns = section.get("columns") or ["original", *(f"view {i}" for i in range(1, most))]
    names = section.get("names") or [""] * len(section["rows"])
    named = [name for name, row in zip(names, section["rows"], strict=True) if row]
    plates_ = [{"name": n, "uris": [data_uri(p) for p in row]} for n, row in zip(named, rows, strict=True)]
    return {"columns": columns, "rows": plates_, "count": most, "note": sentence(section.get("note") or "")}


def clouds(run: Mapping[str, Any]) -> Section:
    """Clouds of points to turn, each in several colourings."""
    shown = [cloud for cloud in run.get("clouds") or [] if cloud.get("xyz")]
    if not shown:
        return None
    packed = [packed_cloud(cloud) for cloud in shown]
    legend = [
        {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*CLASS_COLOURS[k % len(CLASS_COLOURS)])}
        for k, name in enumerate(shown[0].get("classes") or [])
    ]
    return {"clouds": [{"name": c["name"], "data": plates.payload(c)} for c in packed], "legend": legend}


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


def restoration(run: Mapping[str, Any]) -> Section:
    """The before/after pictures."""
    items = run.get("restoration") or []
    return {"items": [restored.plate(item) for item in items]} if items else None


def frames(run: Mapping[str, Any]) -> Section:
    """Restored clips frame by frame, with their flicker in words."""
    shown = []
    for i, item in enumerate(run.get("frames") or []):
        chart = curves.frames_chart(item)
        if chart is None:
            continue
        after, before = (number(item.get(key), 2) for key in ("flicker", "flicker_noisy"))
        found = {"name": item.get("name") or f"clip {i + 1}", "after": after, "before": before}
        shown.append(found | {"svg": both_widths(chart, (560, 240)), "legend": legend(chart)})
    return {"clips": shown} if shown else None


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
    ("label_efficiency", "Label efficiency", label_efficiency),
    ("restoration", "Before and after", restoration),
    ("frames", "Frame by frame", frames),
    ("tasks", "What is kept of earlier tasks", tasks),
    ("protocols", "Evaluation", protocols),
    ("map", "Embedding map", embedding_map),
    ("neighbours", "Nearest neighbours", neighbours),
    ("timeline", "Timeline", timeline),
    ("listings", "Tables", listings),
    ("confusion", "Confusion matrix", confusion),
    ("series", "Windows", series),
    ("clouds", "Features in space", clouds),
    ("views", "What the model saw", views),
    ("pictures", "What the model makes of it", pictures),
    ("training", "Training", training),
    ("spectrum", "Spectrum", spectrum),
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
