"""Sections of the page that show samples: the map, neighbours, views, what was restored, clouds, series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selftaught.report import curves, plates, restored
from selftaught.report.clouds import CLASS_COLOURS, packed_cloud
from selftaught.report.images import data_uri, dimensions
from selftaught.report.lines import both_widths, legend
from selftaught.report.schema import Section
from selftaught.report.text import number, sentence

__all__ = ["clouds", "embedding_map", "frames", "neighbours", "pictures", "restoration", "series", "views"]


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
