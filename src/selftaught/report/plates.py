"""The drawings that are not line charts: embedding map, confusion matrix, sensor windows, interval strips."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from selftaught.report.scales import Scale, fit, label
from selftaught.report.svg import colour_class, dot, kind, marker, polyline, shape_of, tag, view_box
from selftaught.report.text import known, number, shorten

#: More points than this are thinned out evenly before they are drawn.
MOST_POINTS = 5000
#: Up to this many classes the confusion matrix names its rows and columns.
NAMED_CLASSES = 40
#: Up to this many classes the cells carry their percentage.
NUMBERED_CLASSES = 12
MOST_CHANNELS = 12


@dataclass(frozen=True)
class MapPlate:
    """The embedding map, ready for the page.

    Attributes:
        svg: the drawing.
        legend: per class: index, name, marker and how many points it has.
        data: JSON for the script: pixel positions, class indices, tile numbers, names.
        shown: how many points are drawn.
        total: how many there are.
        names: class names, as the tooltip shows them.
    """

    svg: Markup
    legend: list[dict[str, Any]]
    data: dict[str, Any]
    shown: int
    total: int


def map_plate(section: Mapping[str, Any], size: tuple[int, int] = (760, 620)) -> MapPlate | None:
    """Draw the embedding map; ``None`` when no point has a position."""
    points = section.get("xy") or []
    valid = [i for i, (x, y) in enumerate(points) if x is not None and y is not None]
    if not valid:
        return None
    step = math.ceil(len(valid) / MOST_POINTS)
    kept = valid[::step]
    labels = section.get("label") or [-1] * len(points)
    highest = max(labels, default=-1)
    classes = section.get("classes") or [f"class {i}" for i in range(highest + 1)]
    place_x, place_y = _square_axes([points[i] for i in kept], size)
    where = [(place_x(points[i][0]), place_y(points[i][1])) for i in kept]
    radius = 4.6 if len(kept) <= 600 else 3.6 if len(kept) <= 2000 else 2.6
    groups: dict[int, list[str]] = {}
    for i, (x, y) in zip(kept, where, strict=True):
        groups.setdefault(labels[i], []).append(marker(shape_of(_style(labels[i])), x, y, radius))
    paths = [
        tag("path", d="".join(marks), class_=f"points {colour_class(_style(c))}", data_class=c)
        for c, marks in sorted(groups.items())
    ]
    told = f"Map of {number(len(kept))} samples by their embedding, in {len(groups)} groups. Arrow keys move in it."
    ring = tag("circle", r=radius + 4, cx=-99, cy=-99, class_="ring")
    svg = tag("svg", *paths, ring, class_="map", viewBox=view_box(*size), role="img", tabindex="0", aria_label=told)
    counts = Counter(labels[i] for i in kept)
    entries = [_legend_entry(c, classes, counts[c]) for c in sorted(counts)]
    names = section.get("names")
    data = {
        "points": [[x, y, labels[i], i] for i, (x, y) in zip(kept, where, strict=True)],
        "classes": classes,
        "names": [names[i] for i in kept] if names else None,
        "tile": (section.get("thumbs") or {}).get("tile"),
        "columns": (section.get("thumbs") or {}).get("columns"),
    }
    return MapPlate(svg, entries, data, len(kept), len(valid))


def _style(class_index: int) -> str:
    return "none" if class_index < 0 else kind(class_index)


def _legend_entry(index: int, classes: Sequence[str], count: int) -> dict[str, Any]:
    name = classes[index] if index >= 0 else "no label"
    return {"index": index, "name": name, "mark": dot(_style(index)), "count": count}


def _square_axes(points: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[Scale, Scale]:
    """Axes of one common scale, so that distances on the map mean the same in every direction."""
    pad = 16
    xs, ys = fit([p[0] for p in points], 0, 1, margin=0), fit([p[1] for p in points], 0, 1, margin=0)
    per_pixel = max((xs.high - xs.low) / (size[0] - 2 * pad), (ys.high - ys.low) / (size[1] - 2 * pad))
    axes = []
    for scale, pixels, flip in ((xs, size[0], False), (ys, size[1], True)):
        middle, half = (scale.low + scale.high) / 2, per_pixel * (pixels / 2 - pad)
        start, end = (pixels - pad, pad) if flip else (pad, pixels - pad)
        axes.append(Scale(middle - half, middle + half, start, end))
    return axes[0], axes[1]


@dataclass(frozen=True)
class ConfusionPlate:
    """The confusion matrix, ready for the page.

    Attributes:
        svg: the heat map; rows are the true classes and sum to one.
        accuracy: share on the diagonal, ``None`` when the matrix is empty.
        total: number of samples.
        worst: the most frequent mistakes as ``(true, taken for, share of the true class)``.
        small: whether each cell can be named and hovered over.
    """

    svg: Markup
    accuracy: float | None
    total: float
    worst: list[tuple[str, str, float]]
    small: bool


def confusion_plate(section: Mapping[str, Any]) -> ConfusionPlate | None:
    """Draw a confusion matrix as a heat map; ``None`` without classes."""
    classes: list[str] = section.get("classes") or []
    if not classes or not section.get("matrix"):
        return None
    counts = np.array([[v or 0.0 for v in row] for row in section["matrix"]], dtype=float)
    sums = counts.sum(1, keepdims=True)
    shares = np.divide(counts, sums, out=np.zeros_like(counts), where=sums > 0)
    total = float(counts.sum())
    small = len(classes) <= NAMED_CLASSES
    svg = _named_matrix(shares, counts, classes) if small else _dense_matrix(shares)
    wrong = shares.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:5]
    pairs = [divmod(int(k), len(classes)) for k in order]
    worst = [(classes[i], classes[j], float(wrong[i, j])) for i, j in pairs if wrong[i, j] > 0]
    accuracy = float(np.trace(counts) / total) if total > 0 else None
    return ConfusionPlate(svg, accuracy, total, worst, small)


def _named_matrix(shares: np.ndarray, counts: np.ndarray, classes: Sequence[str]) -> Markup:
    n = len(classes)
    cell = max(15, min(64, 520 // n))
    longest = 22 if n <= 20 else 16
    names = [shorten(name, longest) for name in classes]
    margin = 16 + round(max(len(name) for name in names) * 6.4)
    size = margin + n * cell
    parts: list[Any] = []
    for i, j in np.ndindex(n, n):
        x, y, share = margin + j * cell, margin + i * cell, float(shares[i, j])
        said = f"{classes[i]} taken for {classes[j]}: {share:.0%} ({number(float(counts[i, j]))})"
        inner: list[Any] = [tag("title", said)]
        inner.append(tag("rect", x=x, y=y, width=cell - 1, height=cell - 1, class_="cell0"))
        if share > 0:
            heat = tag("rect", x=x, y=y, width=cell - 1, height=cell - 1, class_="cell", fill_opacity=_opacity(share))
            inner.append(heat)
        if n <= NUMBERED_CLASSES and share >= 0.005:
            strong = " strong" if _opacity(share) > 0.5 else ""
            text = f"{100 * share:.0f}"
            inner.append(
                tag("text", text, x=x + cell / 2, y=y + cell / 2 + 4, text_anchor="middle", class_=f"percent{strong}")
            )
        parts.append(tag("g", *inner))
    for i, name in enumerate(names):
        middle = margin + i * cell + cell / 2
        row = tag("text", tag("title", classes[i]), name, x=margin - 8, y=middle + 4, text_anchor="end")
        turn = f"rotate(-90 {middle + 4:g} {margin - 8})"
        column = tag("text", tag("title", classes[i]), name, x=middle + 4, y=margin - 8, transform=turn)
        parts += [row, column]
    told = f"Confusion matrix of {n} classes; rows are the true classes, columns what they were taken for."
    return tag(
        "svg",
        *parts,
        class_="chart matrix",
        viewBox=view_box(size, size),
        role="img",
        aria_label=told,
        style=f"max-width:{size}px;min-width:{0.8 * size:.0f}px",
    )


def _opacity(share: float) -> float:
    """Square root: a mistake of 4 % is still seen beside a diagonal of 90 %."""
    return round(0.06 + 0.94 * math.sqrt(share), 3)


def _dense_matrix(shares: np.ndarray) -> Markup:
    """Many classes: one path per shade instead of one element per cell, and no names."""
    n = len(shares)
    cell = 600 / n
    shades = np.ceil(np.sqrt(shares) * 10).astype(int)
    parts: list[Any] = [tag("rect", x=0, y=0, width=600, height=600, class_="cell0")]
    for shade in range(1, 11):
        rows, columns = np.nonzero(shades == shade)
        path = "".join(
            f"M{j * cell:.1f} {i * cell:.1f}h{cell:.1f}v{cell:.1f}h-{cell:.1f}z"
            for i, j in zip(rows, columns, strict=True)
        )
        if path:
            parts.append(tag("path", d=path, class_="cell", fill_opacity=shade / 10))
    told = f"Confusion matrix of {n} classes; rows are the true classes, columns what they were taken for."
    return tag(
        "svg",
        *parts,
        class_="chart matrix",
        viewBox="0 0 600 600",
        role="img",
        aria_label=told,
        style="max-width:600px",
    )


def window_plate(window: Mapping[str, Any], spans: Sequence[tuple[float, float]], width: int = 352) -> Markup | None:
    """One window of a sensor series, a lane per channel; ``spans`` are the value ranges shared by all windows."""
    channels = [c for c in window.get("channels") or [] if c][:MOST_CHANNELS]
    if not channels:
        return None
    lane = 46 if len(channels) <= 6 else 32
    names = window.get("channel_names") or [f"{i + 1}" for i in range(len(channels))]
    left, height = 10 + round(max(len(shorten(n, 10)) for n in names) * 6.4), lane * len(channels) + 34
    length, rate = len(channels[0]), window.get("rate")
    end = length / rate if rate else float(length)
    time = Scale(0.0, end or 1.0, left, width - 8)
    parts: list[Any] = []
    for i, channel in enumerate(channels):
        top = i * lane
        low, high = spans[i] if i < len(spans) else (-1.0, 1.0)
        value = Scale(low, high, top + lane - 4, top + 4)
        step = max(1, length // 400)
        points = [
            (time(k * end / length), None if channel[k] is None else value(channel[k])) for k in range(0, length, step)
        ]
        parts.append(tag("text", shorten(names[i], 10), x=left - 8, y=top + lane / 2 + 4, text_anchor="end"))
        parts.append(tag("path", d=f"M{left} {top + lane:g}H{width - 8}", class_="grid"))
        parts.append(tag("path", d=polyline(points), class_=f"line thin k-c{i % 7}"))
    ticks = time.ticks(4)
    for tick in ticks:
        x = time(tick)
        anchor = "end" if x > width - 30 else "middle"
        parts.append(tag("text", label(tick, ticks), x=x, y=height - 18, text_anchor=anchor))
    parts.append(
        tag("text", "seconds" if rate else "samples", x=width - 8, y=height - 3, text_anchor="end", class_="name")
    )
    told = f"{len(channels)} channels over {number(end)} {'seconds' if rate else 'samples'}"
    return tag("svg", *parts, class_="chart", viewBox=view_box(width, height), role="img", aria_label=told)


def channel_spans(windows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Per channel the range of values over all windows, so that quiet and lively windows can be told apart."""
    spans = []
    for i in range(max((len(w.get("channels") or []) for w in windows), default=0)):
        values = [v for w in windows if len(w.get("channels") or []) > i for v in known(w["channels"][i])]
        scale = fit(values, 0, 1)
        spans.append((scale.low, scale.high))
    return spans


def strip(cells: Sequence[tuple[str, Mapping[str, Any] | None]], width: int = 190) -> Markup:
    """The values of one table row as dots with intervals on one axis: from 0 to 1 for shares, else over their range."""
    present = [(role, cell) for role, cell in cells if cell and cell.get("mean") is not None]
    values = [v for _, cell in present for v in known([cell.get("mean"), cell.get("low"), cell.get("high")])]
    if len(present) < 2:
        return Markup("")
    shares = min(values) >= 0 and max(values) <= 1
    scale = Scale(0.0, 1.0, 8, width - 8) if shares else fit(values, 8, width - 8)
    parts: list[Any] = [tag("path", d=f"M8 12H{width - 8}M8 8v8M{width - 8} 8v8", class_="grid")]
    for role, cell in present:
        low, high = cell.get("low"), cell.get("high")
        bar = f"M{scale(low):g} 12H{scale(high):g}" if low is not None and high is not None else ""
        mark = marker(shape_of(role), scale(cell["mean"]), 12, 4)
        inner = [tag("path", d=bar, class_="line"), tag("path", d=mark, class_="dot")]
        parts.append(tag("g", *inner, class_=colour_class(role)))
    ends = ("0", "1") if shares else (number(scale.low), number(scale.high))
    return tag(
        "svg", *parts, class_="strip", viewBox=view_box(width, 24), aria_hidden="true", data_ends=" to ".join(ends)
    )


def payload(data: Any) -> Markup:
    """Data as JSON that may stand inside a script element: no ``<``, ``>`` or ``&`` is left in it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for sign, code in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(sign, code)
    return Markup(text)
