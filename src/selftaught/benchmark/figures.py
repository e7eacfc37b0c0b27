"""Static figures of a grid: the critical-difference diagram, and matrices as heat maps. matplotlib, SVG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.benchmark.ranking import Comparison
from selftaught.benchmark.tables import Table

_INK, _SOFT, _BAR = "#1c1e21", "#565b64", "#1459b3"


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> Path:
    import matplotlib as mpl

    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "selftaught", "svg.fonttype": "path"}):
        figure.savefig(path, dpi=160, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def critical_difference(comparison: Comparison, path: Path) -> Path:
    """Mean ranks on an axis, best on the left; thick bars join methods that the test cannot tell apart."""
    names, ranks = comparison.names, comparison.ranks
    low, high = 1.0, float(max(len(names), 2))
    half = math.ceil(len(names) / 2)
    groups = comparison.groups()
    lines = 0.24 * len(groups)
    height = 0.9 + lines + 0.32 * half
    figure = _figure(7.0, height)
    axes = figure.add_axes((0.24, 0.04, 0.52, 0.92))
    axes.set_axis_off()
    axes.set_xlim(low, high)
    axes.set_ylim(-height + 0.35, 0.75)
    _axis(axes, low, high, comparison.difference)
    for line, (first, last) in enumerate(groups):
        y = -0.16 - 0.24 * line
        axes.plot([ranks[first] - 0.03, ranks[last] + 0.03], [y, y], color=_BAR, lw=3.5, solid_capstyle="butt")
    top = -0.2 - lines
    for i, (name, value) in enumerate(zip(names, ranks, strict=True)):
        left = i < half
        y = top - 0.3 * (i if left else len(names) - 1 - i) - 0.15
        edge = low - 0.02 * (high - low) if left else high + 0.02 * (high - low)
        axes.plot([value, value, edge], [0, y, y], color=_INK, lw=0.8, clip_on=False)
        text = f"{name}  {value:.2f}" if left else f"{value:.2f}  {name}"
        axes.text(edge, y, f" {text} ", ha="right" if left else "left", va="center", fontsize=8.5, color=_INK)
    return _save(figure, path)


def _axis(axes: Any, low: float, high: float, difference: float) -> None:
    axes.plot([low, high], [0, 0], color=_INK, lw=1)
    for tick in range(int(low), int(high) + 1):
        axes.plot([tick, tick], [0, 0.07], color=_INK, lw=1)
        axes.text(tick, 0.12, str(tick), ha="center", va="bottom", fontsize=8, color=_SOFT)
    reach = min(difference, high - low)
    axes.plot([low, low + reach], [0.5, 0.5], color=_SOFT, lw=1.6, solid_capstyle="butt")
    axes.text(
        low + reach, 0.5, f"  critical difference {difference:.2f}", ha="left", va="center", fontsize=8, color=_SOFT
    )


def heat_map(table: Table, path: Path, *, places: int = 2) -> Path:
    """A table as a matrix of coloured cells with their means written in; empty cells stay grey."""
    columns = [name for name in table.columns if name not in table.summary]
    values = table.means(columns)
    longest = max(len(name) for name in table.rows)
    figure = _figure(1.2 + 0.085 * longest + 0.62 * len(columns), 1.5 + 0.38 * len(table.rows))
    axes = figure.add_subplot()
    colours = "Blues" if table.better == "high" else "Blues_r"
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    axes.imshow(values, cmap=colours, vmin=low - 0.02, vmax=max(high, low + 1e-6), aspect="auto")
    axes.set_facecolor("#ececea")
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(table.rows)), table.rows, fontsize=8)
    axes.tick_params(length=0)
    axes.set_title(table.title, fontsize=9, loc="left")
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (i, j), value in np.ndenumerate(values):
        if math.isfinite(value):
            share = (value - low) / max(high - low, 1e-9)
            dark = share > 0.6 if table.better == "high" else share < 0.4
            axes.text(
                j, i, f"{value:.{places}f}", ha="center", va="center", fontsize=7, color="white" if dark else _INK
            )
    return _save(figure, path)
