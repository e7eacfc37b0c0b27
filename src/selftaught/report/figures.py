"""Figures for documents, as SVG files: label efficiency, and a method beside its baseline with paired differences.

They are drawn by the code and in the colours of the page. Each file brings its style and its ground, light or dark as
the reader's screen is, so that it can be read on any page.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any, TypedDict

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from selftaught.errors import UserError
from selftaught.report import schema, validation
from selftaught.report.curves import label_chart
from selftaught.report.lines import draw
from selftaught.report.scales import Scale, fit, label
from selftaught.report.schema import Number
from selftaught.report.svg import colour_class, marker, shape_of, tag, view_box
from selftaught.report.text import number, shorten

_LETTER, _EDGE, _LINE, _ROW = 6.8, 16, 17, 58  # pixels: a letter of chart text, margin, line of text, row of a claim


class Side(TypedDict):
    """One side of a claim: its name and one value per seed, in the same order of seeds on both sides."""

    name: str
    values: list[float]


class ClaimRow(TypedDict):
    """One setting of a claim ("batch 32"): both sides, and the paired difference with its interval."""

    setting: str
    method: Side
    baseline: Side
    difference: Number


class Claim(TypedDict, total=False):
    """What a claims figure shows. ``better`` is "high" (default) or "low"; ``note`` says what the interval is."""

    title: str
    metric: str
    better: str
    note: str
    rows: list[ClaimRow]


def label_efficiency_figure(
    section: schema.LabelEfficiency, path: str | os.PathLike[str], *, size: tuple[int, int] = (700, 400)
) -> Path:
    """Draw accuracy against labels per class, with intervals, as an SVG file.

    Args:
        section: as the report's ``label_efficiency``.
        path: file to write, ending in .svg.
        size: of the chart in pixels, without its legend.

    Raises:
        UserError: the section is out of shape or has no curve, or the file is not to be SVG.
    """
    checked = validation.validate({"label_efficiency": section})["label_efficiency"]
    chart = label_chart(checked)
    if chart is None:
        raise UserError("report: label_efficiency has no curve with a value; give at least one")
    legend = _legend([(line.role, line.name) for line in reversed(chart.lines)], _EDGE)
    inner = tag("svg", draw(chart, *size), x=0, y=_LINE + _EDGE, width=size[0], height=size[1])
    return _write(path, (legend, inner), (size[0], size[1] + _LINE + _EDGE))


def claims_figure(claim: Claim, path: str | os.PathLike[str], *, width: int = 800) -> Path:
    """Draw a claim: left every seed of method and baseline, joined in pairs; right the paired differences.

    A difference whose interval holds zero is drawn hollow: at this size it shows nothing. An interval of no width, of
    seeds that all gave the same value, is none.

    Args:
        claim: rows of settings with the values of both sides, see :class:`Claim`.
        path: file to write, ending in .svg.
        width: pixels; the height follows from the number of rows.

    Raises:
        UserError: no row, a row whose sides have no or unequally many values, or the file is not to be SVG.
    """
    rows = _checked_rows(claim)
    title = wrap(claim.get("title") or "", int((width - 2 * _EDGE) / 7.4))
    top = _EDGE + _LINE * (len(title) + 1)
    names = [shorten(str(row["setting"]), 40) for row in rows]
    left = 2 * _EDGE + round(max(len(name) for name in names) * _LETTER)
    middle = left + round(0.58 * (width - left - _EDGE))
    values = [v for row in rows for side in ("method", "baseline") for v in row[side]["values"]]
    ends = [row["difference"].get(key) for row in rows for key in ("mean", "low", "high")]
    scores = fit(values, left, middle - _EDGE, margin=0.06)
    gains = fit([v for v in ends if v is not None], middle + _EDGE, width - _EDGE, include=[0.0], margin=0.06)
    bottom = top + _ROW * len(rows)
    parts: list[Any] = [tag("text", text, x=_EDGE, y=_EDGE + _LINE * i, class_="name") for i, text in enumerate(title)]
    lower = " (lower is better)" if claim.get("better") == "low" else ""
    parts += _axis(scores, (top, bottom), f"{claim.get('metric') or 'score'}{lower}, one mark per seed")
    parts += _axis(gains, (top, bottom), claim.get("note") or "method minus baseline, with interval")
    parts.append(tag("path", d=f"M{gains(0.0):g} {top}V{bottom}", class_="axis"))
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        y = top + _ROW * (i + 0.5)
        parts.append(tag("text", name, x=left - _EDGE, y=y + 4, text_anchor="end"))
        parts += [*_pairs(row, scores, y), _difference(row["difference"], gains, y)]
    notes = max(len(_axis_name(scores, "x" * 30)), len(_axis_name(gains, claim.get("note") or "x" * 40)))
    foot = bottom + 24 + _LINE * notes
    baselines = {str(row["baseline"]["name"]) for row in rows}
    other = baselines.pop() if len(baselines) == 1 else "baseline"
    parts.append(_legend([("this", rows[0]["method"]["name"]), ("raw", other)], foot + _LINE))
    return _write(path, parts, (width, foot + 2 * _LINE), _told(rows))


def _checked_rows(claim: Claim) -> list[Any]:
    rows: list[Any] = validation.plain(claim.get("rows") or [])
    if not rows:
        raise UserError("report: claim.rows is empty; give at least one setting")
    for i, row in enumerate(rows):
        for name in ("setting", "method", "baseline", "difference"):
            if name not in row:
                raise UserError(f"report: claim.rows[{i}] has no {name!r}")
        counts = [len(row[side]["values"]) for side in ("method", "baseline")]
        if counts[0] != counts[1] or not counts[0]:
            raise UserError(
                f"report: claim.rows[{i}] has {counts[0]} and {counts[1]} values; pairs need equally many, at least one"
            )
        if row["difference"].get("mean") is None:
            raise UserError(f"report: claim.rows[{i}].difference has no mean")
    return rows


def _axis(scale: Scale, reach: tuple[float, float], name: str) -> list[Markup]:
    """Upright grid lines with their numbers, and the axis' name below."""
    top, bottom = reach
    ticks = scale.ticks(max(3, int((scale.end - scale.start) / 70)))
    parts = [tag("path", d=f"M{scale(t):g} {top}V{bottom}", class_="grid") for t in ticks]
    parts += [tag("text", label(t, ticks), x=scale(t), y=bottom + 18, text_anchor="middle") for t in ticks]
    for i, text in enumerate(_axis_name(scale, name)):
        parts.append(tag("text", text, x=scale.start, y=bottom + 24 + _LINE * (i + 1), class_="name"))
    return parts


def _axis_name(scale: Scale, name: str) -> list[str]:
    return wrap(name, int((scale.end - scale.start) / _LETTER))


def _pairs(row: Mapping[str, Any], scale: Scale, y: float) -> list[Markup]:
    """A mark per seed of both sides, those of one seed joined."""
    both = list(zip(row["baseline"]["values"], row["method"]["values"], strict=True))
    parts = [tag("path", d="".join(f"M{scale(a):g} {y + 9:g}L{scale(b):g} {y - 9:g}" for a, b in both), class_="pair")]
    for role, k, offset in (("raw", 0, 9), ("this", 1, -9)):
        marks = [tag("path", d=marker(shape_of(role), scale(p[k]), y + offset, 4.2), class_="dot") for p in both]
        parts.append(tag("g", *marks, class_=colour_class(role)))
    return parts


def _difference(difference: Mapping[str, Any], scale: Scale, y: float) -> Markup:
    """The mean, filled where the interval leaves zero out, and the interval."""
    low, high = difference.get("low"), difference.get("high")
    bar, sure = None, False
    if low is not None and high is not None and high > low:
        sure = low > 0 or high < 0
        bar = tag("path", d=f"M{scale(low):g} {y:g}H{scale(high):g}", class_="interval")
    mean = marker("circle", scale(difference["mean"]), y, 5)
    return tag("g", bar, tag("path", d=mean, class_="dot" if sure else "hollow"), class_="k-this")


def _legend(entries: Sequence[tuple[str, str]], y: float) -> Markup:
    """Markers and names in a line."""
    parts, x = [], float(_EDGE)
    for role, name in entries:
        mark = tag("path", d=marker(shape_of(role), x + 5, y, 4.2), class_="dot")
        parts.append(tag("g", mark, tag("text", name, x=x + 16, y=y + 4), class_=colour_class(role)))
        x += 40 + len(name) * _LETTER
    return tag("g", *parts)


def _told(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figure in words."""
    said = []
    for row in rows:
        d = row["difference"]
        wide = d.get("low") is not None and d.get("high") is not None and d["high"] > d["low"]
        ends = f" ({number(d['low'], 3)} to {number(d['high'], 3)})" if wide else ""
        said.append(
            f"{row['setting']}: {row['method']['name']} minus {row['baseline']['name']} {number(d['mean'], 3)}{ends}"
        )
    return "; ".join(said)


@cache
def _style() -> str:
    return Environment(loader=PackageLoader("selftaught.report")).get_template("chart.css").render()


def _write(path: str | os.PathLike[str], parts: Sequence[Any], size: tuple[float, float], told: str = "") -> Path:
    target = Path(path)
    if target.suffix.lower() != ".svg":
        raise UserError(f"report: {target.name} should end in .svg")
    ground = tag("rect", width="100%", height="100%", class_="ground")
    title = tag("title", told) if told else None
    svg = tag(
        "svg",
        title,
        tag("style", Markup(_style())),
        ground,
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        class_="chart",
        viewBox=view_box(*size),
        width=size[0],
        height=size[1],
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(svg + "\n", encoding="utf-8")
    return target
