"""Static figures for documents: label efficiency, and a method beside its baseline with paired differences.

matplotlib is imported when a figure is drawn. Colours and markers are those of the HTML page.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any, TypedDict

from selftaught.errors import UserError
from selftaught.report import schema, validation
from selftaught.report.curves import label_lines
from selftaught.report.schema import Number
from selftaught.report.text import known, number, shorten

_COLOURS = {"this": "#1459b3", "random": "#a85400", "raw": "#6a717c"}
_MARKERS = {"this": "o", "random": "s", "raw": "^"}
_DASHES = {"this": "-", "random": "--", "raw": ":"}
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#565b64",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "selftaught",
    "svg.fonttype": "path",
    "figure.constrained_layout.use": True,
}


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
    section: schema.LabelEfficiency, path: str | os.PathLike[str], *, size: tuple[float, float] = (5.6, 3.6)
) -> Path:
    """Draw accuracy against labels per class, with intervals, as PNG or SVG.

    Args:
        section: as the report's ``label_efficiency``.
        path: file to write; its ending picks the format.
        size: inches.

    Raises:
        UserError: the section is out of shape or has no curve.
    """
    checked = validation.validate({"label_efficiency": section})["label_efficiency"]
    lines = label_lines(checked)
    if not lines:
        raise UserError("report: label_efficiency has no curve with a value; give at least one")
    with _figure(path, size) as (figure, save):
        axes = figure.subplots()
        for i, line in enumerate(lines):
            colour = _COLOURS.get(line.role, f"C{i}")
            y = [float("nan") if v is None else v for v in line.y]
            style: dict[str, Any] = {
                "color": colour,
                "marker": _MARKERS.get(line.role, "D"),
                "linestyle": _DASHES.get(line.role, "-"),
            }
            axes.plot(line.x, y, label=line.name, markersize=4.5, **style)
            if line.low and line.high:
                low, high = ([float("nan") if v is None else v for v in ends] for ends in (line.low, line.high))
                axes.fill_between(line.x, low, high, color=colour, alpha=0.15, linewidth=0)
        if checked.get("chance") is not None:
            axes.axhline(checked["chance"], color="#565b64", linestyle=(0, (1, 3)), linewidth=1)
            axes.annotate(
                "chance",
                (1, checked["chance"]),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=8,
            )
        ticks = sorted({x for line in lines for x in line.x})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [number(t) for t in ticks])
        axes.minorticks_off()
        if all(0 <= v <= 1 for line in lines for v in known(line.y)):
            axes.set_ylim(0, 1)
        axes.set(xlabel="labels per class", ylabel=checked.get("metric") or "accuracy")
        handles, names = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], names[::-1], loc="best")
        return save()


def claims_figure(claim: Claim, path: str | os.PathLike[str], *, width: float = 7.6) -> Path:
    """Draw a claim: left every seed of method and baseline, joined in pairs; right the paired differences.

    A difference whose interval holds zero is drawn hollow: at this size it shows nothing.

    Args:
        claim: rows of settings with the values of both sides, see :class:`Claim`.
        path: file to write, PNG or SVG by its ending.
        width: inches; the height follows from the number of rows.

    Raises:
        UserError: no row, or a row whose sides have no or unequally many values.
    """
    rows = _checked_rows(claim)
    title = fill(claim.get("title") or "", 80)
    height = 1.6 + 0.2 * title.count("\n") + 0.62 * len(rows)
    with _figure(path, (width, height)) as (figure, save):
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.5, 1))
        figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, horizontalalignment="left")
        for i, row in enumerate(rows):
            _pairs(left, i, row)
            _difference(right, i, row["difference"])
        _claim_axes(left, right, claim, rows)
        return save()


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


def _pairs(axes: Any, i: int, row: Mapping[str, Any]) -> None:
    for baseline, method in zip(row["baseline"]["values"], row["method"]["values"], strict=True):
        axes.plot([baseline, method], [i + 0.14, i - 0.14], color="#c9cbce", linewidth=0.9, zorder=1)
    for side, role, offset in (("baseline", "raw", 0.14), ("method", "this", -0.14)):
        values = row[side]["values"]
        style = {
            "color": _COLOURS[role],
            "marker": _MARKERS[role],
            "s": 22,
            "edgecolor": "white",
            "linewidth": 0.5,
            "zorder": 2,
        }
        axes.scatter(values, [i + offset] * len(values), **style, label=row[side]["name"])


def _difference(axes: Any, i: int, difference: Mapping[str, Any]) -> None:
    low, high, mean = difference.get("low"), difference.get("high"), difference["mean"]
    sure = low is not None and high is not None and (low > 0 or high < 0)
    if low is not None and high is not None:
        axes.plot([low, high], [i, i], color=_COLOURS["this"], linewidth=2, alpha=0.55, solid_capstyle="butt")
    face = _COLOURS["this"] if sure else "white"
    axes.plot([mean], [i], "o", color=_COLOURS["this"], markerfacecolor=face, markersize=6)


def _claim_axes(left: Any, right: Any, claim: Claim, rows: Sequence[Mapping[str, Any]]) -> None:
    metric = claim.get("metric") or "score"
    lower = " (lower is better)" if claim.get("better") == "low" else ""
    left.set_yticks(range(len(rows)), [shorten(str(row["setting"]), 28) for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set(xlabel=f"{metric}{lower}, one mark per seed")
    right.set(xlabel=fill(claim.get("note") or "method minus baseline, with interval", 36))
    right.axvline(0, color="#565b64", linewidth=1)
    right.locator_params(axis="x", nbins=4)  # more labels of three decimals run into each other
    handles, names = left.get_legend_handles_labels()
    baselines = {str(row["baseline"]["name"]) for row in rows}
    shown = [handles[1], handles[0]], [names[1], names[0] if len(baselines) == 1 else "baseline"]
    left.figure.legend(*shown, loc="outside lower left", ncols=2)
    for axes in (left, right):
        axes.grid(axis="x", color="#e6e6e4")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)


@contextmanager
def _figure(path: str | os.PathLike[str], size: tuple[float, float]) -> Iterator[tuple[Any, Any]]:
    """A figure outside pyplot's register, and the function that saves it without a date in the file."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target = Path(path)
    if target.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"report: {target.name} should end in .png, .svg or .pdf")

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)

        def save() -> Path:
            target.parent.mkdir(parents=True, exist_ok=True)
            dated = {".svg": "Date", ".pdf": "CreationDate"}.get(target.suffix.lower())
            figure.savefig(target, dpi=160, metadata={dated: None} if dated else None)
            return target

        yield figure, save
