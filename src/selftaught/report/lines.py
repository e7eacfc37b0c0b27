"""The line chart: drawn here as SVG, at two widths so that its letters keep their size on a phone and on a desk."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from selftaught.report.scales import Scale, fit, label
from selftaught.report.svg import colour_class, marker, polyline, ribbon, shape_of, swatch, tag, view_box
from selftaught.report.text import known, number, shorten

_LETTER = 6.6  # width of a digit at the 12 px of chart text


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: as in the legend.
        x: positions, rising.
        y: values, ``None`` where there is none.
        low: lower ends of the band around the curve; ``None`` for no band.
        high: upper ends.
        role: "this", "random", "raw", "rule" or "c0", "c1", ...: colour and marker.
        dots: draw a marker on every value (a value without neighbours always gets one).
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    role: str = "this"
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """What a line chart says; :func:`draw` says how.

    Attributes:
        lines: the curves; later ones lie on top.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis, written above it.
        x_log: logarithmic x.
        y_log: logarithmic y; values that are not above zero leave gaps.
        x_ticks: tick positions; ``None`` for round ones.
        x_include: values that the x axis must hold.
        y_include: values that the y axis must hold.
        y_high: natural end of the y axis (1 for shares), used once the values come near it.
        rule: a horizontal line and its name, such as chance.
        point: how a position reads in the tooltip, with ``{}`` for the number.
        band: whether the tooltip tells the ends of a line's band.
        places: decimals of the values in tooltips; ``None`` for as many as each needs.
    """

    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    x_log: bool = False
    y_log: bool = False
    x_ticks: tuple[float, ...] | None = None
    x_include: tuple[float, ...] = ()
    y_include: tuple[float, ...] = ()
    y_high: float | None = None
    rule: tuple[float, str] | None = None
    point: str = "{}"
    band: bool = True
    places: int | None = None


@dataclass
class _Frame:
    chart: Chart
    width: int
    height: int
    x: Scale = field(init=False)
    y: Scale = field(init=False)
    y_ticks: list[float] = field(init=False)

    def __post_init__(self) -> None:
        chart, top, bottom = self.chart, 30, self.height - 40
        y_values = [v for line in chart.lines for part in (line.y, line.low, line.high) for v in known(part)]
        include = [*chart.y_include, *([chart.rule[0]] if chart.rule else [])]
        self.y = fit(y_values, bottom, top, log=chart.y_log, include=include, margin=0.06)
        if chart.y_high is not None and 0.6 * chart.y_high < max([*y_values, 0]) <= chart.y_high:
            self.y = replace(self.y, high=chart.y_high)
        self.y_ticks = self.y.ticks(max(3, self.height // 80))
        letters = max((len(label(t, self.y_ticks)) for t in self.y_ticks), default=1)
        x_values = [v for line in chart.lines for v in line.x]
        left = round(letters * _LETTER) + 14
        self.x = fit(
            x_values,
            left,
            self.width - 14,
            log=chart.x_log,
            include=chart.x_include,
            margin=0.03 if chart.x_log else 0.015,
        )

    def x_ticks(self) -> list[float]:
        """The positions to name, thinned out until their labels have room."""
        wanted = list(self.chart.x_ticks or self.x.ticks(max(3, self.width // 100)))
        wanted = [t for t in wanted if self.x.low <= t <= self.x.high]
        kept: list[float] = []
        edge = -math.inf
        for value in wanted:
            half = len(label(value, wanted)) * _LETTER / 2
            if self.x(value) - half > edge + 6:
                kept.append(value)
                edge = self.x(value) + half
        return kept

    def place(self, value: float | None) -> float | None:
        if value is None or not math.isfinite(value) or (self.chart.y_log and value <= 0):
            return None
        return self.y(value)


def draw(chart: Chart, width: int, height: int, described: str = "") -> Markup:
    """The chart as one SVG element with a text alternative, hover titles on its dots and data for the crosshair."""
    frame = _Frame(chart, width, height)
    inner: list[Any] = [_grid(frame)]
    if chart.rule:
        inner.append(_rule(frame, *chart.rule))
    inner += [_band(frame, line) for line in chart.lines if line.low is not None and line.high is not None]
    inner += [_curve(frame, line) for line in chart.lines]
    return tag(
        "svg",
        *inner,
        class_="chart",
        viewBox=view_box(width, height),
        role="img",
        tabindex="0",
        aria_label=described or describe(chart),
        data_chart=json.dumps(_hover(frame), separators=(",", ":"), allow_nan=False),
    )


def both_widths(
    chart: Chart, wide: tuple[int, int], narrow: tuple[int, int] = (352, 250), style: str = "fits"
) -> Markup:
    """The chart at two sizes; the style sheet shows the one that fits its container ("fits" or "fits tiny")."""
    described = describe(chart)
    large = tag("div", draw(chart, *wide, described), class_="wide")
    small = tag("div", draw(chart, *narrow, described), class_="narrow")
    return tag("div", tag("div", large, small, class_="two-widths"), class_=style)


def legend(chart: Chart) -> Markup:
    """Names of the curves with their line and marker; nothing for a single curve."""
    if len(chart.lines) < 2:
        return Markup("")
    entries = [tag("li", swatch(line.role), tag("span", line.name)) for line in chart.lines]
    return tag("ul", *entries, class_="legend")


def describe(chart: Chart) -> str:
    """The chart in words, for those who can't see it: each curve's first and last value."""
    said = []
    for line in chart.lines:
        pairs = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
        if not pairs:
            said.append(f"{line.name}: no values")
        elif len(pairs) == 1:
            said.append(f"{line.name}: {number(pairs[0][1])} at {number(pairs[0][0])}")
        else:
            (x0, y0), (x1, y1) = pairs[0], pairs[-1]
            said.append(f"{line.name}: {number(y0)} at {number(x0)}, {number(y1)} at {number(x1)}")
    rule = f" {chart.rule[1]}: {number(chart.rule[0])}." if chart.rule else ""
    return (
        f"Line chart of {chart.y_label} against {chart.x_label}. {'; '.join(said)}.{rule} Arrow keys read the values."
    )


def _grid(frame: _Frame) -> Markup:
    left, right, bottom = frame.x.start, frame.x.end, frame.y.start
    parts: list[Any] = []
    for tick in frame.y_ticks:
        y = frame.y(tick)
        parts.append(tag("path", d=f"M{left:g} {y:g}H{right:g}", class_="grid"))
        parts.append(tag("text", label(tick, frame.y_ticks), x=left - 8, y=y + 4, text_anchor="end"))
    ticks = frame.x_ticks()
    for tick in ticks:
        x = frame.x(tick)
        parts.append(tag("path", d=f"M{x:g} {bottom:g}v5", class_="axis"))
        parts.append(tag("text", label(tick, ticks), x=x, y=bottom + 19, text_anchor="middle"))
    parts.append(tag("path", d=f"M{left:g} {bottom:g}H{right:g}", class_="axis"))
    fits = int(frame.width / _LETTER)
    parts.append(tag("text", shorten(frame.chart.y_label, fits), x=2, y=13, class_="name"))
    name = shorten(frame.chart.x_label, fits)
    parts.append(tag("text", name, x=right, y=bottom + 36, text_anchor="end", class_="name"))
    return tag("g", *parts, aria_hidden="true")


def _rule(frame: _Frame, value: float, name: str) -> Markup:
    y = frame.place(value)
    if y is None:
        return Markup("")
    line = tag("path", d=f"M{frame.x.start:g} {y:g}H{frame.x.end:g}", class_="rule")
    text = tag("text", f"{name} {number(value)}", x=frame.x.end - 4, y=y - 5, text_anchor="end", class_="rule-name")
    return tag("g", line, text, aria_hidden="true")


def _band(frame: _Frame, line: Line) -> Markup:
    low = [frame.place(v) for v in line.low or ()]
    high = [frame.place(v) for v in line.high or ()]
    x = [frame.x(v) for v in line.x]
    area = tag("path", d=ribbon(x, low, high), class_="band")
    whiskers = ""
    if line.dots:
        ends = [(px, a, b) for px, a, b in zip(x, low, high, strict=True) if a is not None and b is not None]
        whiskers = "".join(f"M{px:g} {a:g}V{b:g}M{px - 3:g} {a:g}h6M{px - 3:g} {b:g}h6" for px, a, b in ends)
    return tag(
        "g", area, tag("path", d=whiskers, class_="whisker") if whiskers else None, class_=colour_class(line.role)
    )


def _curve(frame: _Frame, line: Line) -> Markup:
    points = [(frame.x(x), frame.place(y)) for x, y in zip(line.x, line.y, strict=True)]
    parts: list[Any] = [tag("path", d=polyline(points), class_="line")]
    for i, (x, y) in enumerate(points):
        alone = (i == 0 or points[i - 1][1] is None) and (i + 1 == len(points) or points[i + 1][1] is None)
        if y is not None and (line.dots or alone):
            title = tag("title", f"{line.name}, {_position(frame.chart, line.x[i])}: {_reading(frame.chart, line, i)}")
            parts.append(tag("path", title, d=marker(shape_of(line.role), x, y), class_="dot"))
    return tag("g", *parts, class_=f"{colour_class(line.role)} r-{line.role}")


def _position(chart: Chart, x: float) -> str:
    text = number(x)
    words = chart.point.replace("{}", text)
    return words.replace("labels", "label") if text == "1" else words


def _reading(chart: Chart, line: Line, i: int) -> str:
    value = number(line.y[i], chart.places)
    if chart.band and line.low is not None and line.high is not None:
        low, high = line.low[i], line.high[i]
        if low is not None and high is not None and high > low:
            places = chart.places
            return f"{value} ({number(low, places)} to {number(high, places)})"
    return value


def _hover(frame: _Frame) -> dict[str, Any]:
    chart = frame.chart
    rows: dict[float, list[list[Any]]] = {}
    for k, line in enumerate(chart.lines):
        for i, x in enumerate(line.x):
            y = frame.place(line.y[i])
            if y is not None:
                rows.setdefault(x, []).append([k, y, _reading(chart, line, i)])
    points = [[frame.x(x), _position(chart, x), rows[x]] for x in sorted(rows)]
    names = [[line.name, colour_class(line.role)] for line in chart.lines]
    return {"top": frame.y.end, "bottom": frame.y.start, "names": names, "points": points}


def thin(
    x: Sequence[float], y: Sequence[float | None], limit: int = 200
) -> tuple[list[float], list[float | None], list[float | None], list[float | None]]:
    """A long curve in at most ``limit`` pieces: where, mean, lowest and highest value of each piece.

    Args:
        x: (n,) positions, rising.
        y: (n,) values, ``None`` where there is none.
        limit: how many pieces to keep.

    Returns:
        Four lists of equal length; a piece without any value has ``None``.
    """
    size = max(1, math.ceil(len(x) / limit))
    where: list[float] = []
    found: dict[str, list[float | None]] = {"mean": [], "low": [], "high": []}
    kinds: dict[str, Callable[[list[float]], float]] = {"mean": lambda v: sum(v) / len(v), "low": min, "high": max}
    for start in range(0, len(x), size):
        piece = known(y[start : start + size])
        where.append(x[min(start + size, len(x)) - 1] if size > 1 else x[start])
        for name, of in kinds.items():
            found[name].append(of(piece) if piece else None)
    return where, found["mean"], found["low"], found["high"]
