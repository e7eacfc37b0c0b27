"""SVG elements as escaped text: everything that enters a tag passes through markupsafe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup, escape

#: Marker shapes, and how many colours the style sheet knows (``c0`` ...). Five and seven share no factor: 35 pairs.
SHAPES = ("circle", "square", "triangle", "diamond", "cross")
COLOURS = 7

_ROLE_SHAPE = {"this": "circle", "original": "diamond", "retrained": "cross", "random": "square", "raw": "triangle"}


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """One element, everything in it escaped. ``class_`` is ``class``, ``_`` becomes ``-``, ``None`` is left out."""
    parts = []
    for key, value in attributes.items():
        if value is not None:
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"')
    body = Markup("").join(escape(child) for child in children if child is not None)
    head = f"<{name}{''.join(parts)}"
    return Markup(f"{head}>{body}</{name}>" if children else f"{head}/>")


def _plain(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def view_box(width: float, height: float) -> str:
    """The ``viewBox`` of a drawing that starts in its corner."""
    return f"0 0 {width:g} {height:g}"


def kind(index: int) -> str:
    """Name of the style of the i-th of many: the colours come round after seven, the shapes after five."""
    return f"c{index}"


def colour_class(role: str) -> str:
    """The CSS class that sets the colour of a role ("this", "random", "raw") or of the i-th of many ("c12")."""
    return f"k-c{int(role[1:]) % COLOURS}" if role[:1] == "c" and role[1:].isdigit() else f"k-{role}"


def shape_of(role: str) -> str:
    """The marker shape that goes with a role, so that no line is told by its colour alone."""
    if role in _ROLE_SHAPE:
        return _ROLE_SHAPE[role]
    return SHAPES[int(role[1:]) % len(SHAPES)] if role[1:].isdigit() else "diamond"


def marker(shape: str, x: float, y: float, r: float = 4.0) -> str:
    """Path data of one marker of about the same area, whatever its shape."""
    if shape == "square":
        a = 0.88 * r
        return f"M{x - a:.1f} {y - a:.1f}h{2 * a:.1f}v{2 * a:.1f}h{-2 * a:.1f}z"
    if shape == "triangle":
        return f"M{x:.1f} {y - 1.2 * r:.1f}l{1.15 * r:.1f} {2 * r:.1f}h{-2.3 * r:.1f}z"
    if shape == "diamond":
        a = 1.25 * r
        return f"M{x:.1f} {y - a:.1f}l{a:.1f} {a:.1f}l{-a:.1f} {a:.1f}l{-a:.1f} {-a:.1f}z"
    if shape == "cross":
        a, b = 1.2 * r, 0.42 * r
        c = a - b
        return (
            f"M{x - b:.1f} {y - a:.1f}h{2 * b:.1f}v{c:.1f}h{c:.1f}v{2 * b:.1f}h{-c:.1f}v{c:.1f}h{-2 * b:.1f}"
            f"v{-c:.1f}h{-c:.1f}v{-2 * b:.1f}h{c:.1f}z"
        )
    return f"M{x - r:.1f} {y:.1f}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"


def swatch(role: str) -> Markup:
    """The small line-and-marker that stands before a name in a legend."""
    line = tag("path", d="M1 7H25", class_="line")
    dot = tag("path", d=marker(shape_of(role), 13, 7, 3.6), class_="dot")
    return tag("svg", line, dot, class_=f"swatch {colour_class(role)}", viewBox="0 0 26 14", aria_hidden="true")


def dot(role: str) -> Markup:
    """The marker alone, for the legend of a map."""
    shape = tag("path", d=marker(shape_of(role), 7, 7, 4.2), class_="dot")
    return tag("svg", shape, class_=f"swatch dot-only {colour_class(role)}", viewBox="0 0 14 14", aria_hidden="true")


def polyline(points: Iterable[tuple[float, float | None]]) -> str:
    """Path data of a line that breaks wherever y is missing."""
    parts, pen = [], "M"
    for x, y in points:
        if y is None:
            pen = "M"
            continue
        parts.append(f"{pen}{x:g} {y:g}")
        pen = "L"
    return "".join(parts)


def ribbon(x: Sequence[float], low: Sequence[float | None], high: Sequence[float | None]) -> str:
    """Path data of the area between two curves, in pieces where either is missing."""
    pieces: list[str] = []
    stretch: list[tuple[float, float, float]] = []
    for px, a, b in [*zip(x, low, high, strict=True), (0.0, None, None)]:
        if a is not None and b is not None:
            stretch.append((px, a, b))
        else:
            if len(stretch) > 1:
                there = "L".join(f"{px:g} {b:g}" for px, _, b in stretch)
                back = "L".join(f"{px:g} {a:g}" for px, a, _ in reversed(stretch))
                pieces.append(f"M{there}L{back}Z")
            stretch = []
    return "".join(pieces)
