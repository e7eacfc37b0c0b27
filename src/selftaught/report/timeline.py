"""The timeline of a recording: its frames, and below them a strip coloured by the group that each moment belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from selftaught.report.images import data_uri, dimensions
from selftaught.report.schema import Section
from selftaught.report.svg import colour_class, kind, tag, view_box
from selftaught.report.text import number

__all__ = ["clock", "timeline"]

_WIDTH, _STRIP, _AXIS = 960.0, 34.0, 24.0  # pixels
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_MOST_TICKS = 12


def timeline(run: Mapping[str, Any]) -> Section:
    """The drawing, and for each group its letter, typical picture, share, and when it is seen."""
    section = run.get("timeline")
    if not section or not section.get("group"):
        return None
    runs = _runs(section)
    whole = sum(end - start for start, end, _ in runs) or 1.0
    timed = bool(section.get("timed", True))
    groups = []
    for g, picture in enumerate(section.get("typical") or []):
        own = [(start, end) for start, end, group in runs if group == g]
        first = ", ".join(f"{clock(start, timed)} to {clock(end, timed)}" for start, end in own[:3])
        more = f" and {len(own) - 3} more" if len(own) > 3 else ""
        share = sum(end - start for start, end in own) / whole
        groups.append({"letter": letter(g), "colour": colour_class(kind(g)), "uri": data_uri(picture),
                       "share": f"{share:.0%}", "when": first + more})  # fmt: skip
    return {
        "name": section.get("name") or "",
        "svg": _drawing(section, runs, timed),
        "groups": groups,
        "moments": len(section["group"]),
    }


def letter(group: int) -> str:
    """A, B, C ..."""
    return chr(ord("A") + group % 26)


def clock(at: float, timed: bool = True) -> str:
    """``0:07``, ``1:02:03``, below ten seconds ``3.4 s``; of a recording without a clock the number of the frame."""
    if not timed:
        return number(round(at))
    if at < 10:
        return f"{at:.1f} s"
    minutes, seconds = divmod(round(at), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _runs(section: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    """Stretches of one group: each moment lasts until the next one begins."""
    starts, ends = section["start"], section["end"]
    found: list[tuple[float, float, int]] = []
    for k, group in enumerate(section["group"]):
        end = float(starts[k + 1] if k + 1 < len(starts) else max(ends[k], starts[k]))
        if found and found[-1][2] == group:
            found[-1] = (found[-1][0], end, group)
        else:
            found.append((float(starts[k]), end, int(group)))
    return found


def _drawing(section: Mapping[str, Any], runs: list[tuple[float, float, int]], timed: bool) -> Markup:
    begin, end = runs[0][0], runs[-1][1]
    scale = _WIDTH / max(end - begin, 1e-9)
    parts, top = [], 0.0
    if section.get("film"):
        width, height = dimensions(section["film"])
        top = _WIDTH * height / width
        parts.append(tag("image", href=data_uri(section["film"]), x=0, y=0, width=_WIDTH, height=top))
        top += 4
    for start, stop, group in runs:
        x, wide = (start - begin) * scale, (stop - start) * scale
        told = f"{clock(start, timed)} to {clock(stop, timed)}: {letter(group)}"
        box = tag("rect", tag("title", told), x=x, y=top, width=max(wide, 0.5), height=_STRIP, class_="moment")
        name = None
        if wide >= 14:
            name = tag("text", letter(group), x=x + wide / 2, y=top + _STRIP / 2 + 4, text_anchor="middle")
        parts.append(tag("g", box, name, class_=colour_class(kind(group))))
    step: float = next((t for t in _TICKS if (end - begin) / t <= _MOST_TICKS), _TICKS[-1])
    if not timed:
        step = max(1.0, round((end - begin) / 8, -1))
    at, bottom = (begin // step + (begin % step > 0)) * step, top + _STRIP
    while at <= end:
        x = (at - begin) * scale
        anchor = "start" if x < 20 else "end" if x > _WIDTH - 20 else "middle"
        parts.append(tag("path", d=f"M{x:.1f} {bottom}v5", class_="axis"))
        parts.append(tag("text", clock(at, timed), x=x, y=bottom + 19, text_anchor=anchor))
        at += step
    between = f"from {clock(begin, timed)} to {clock(end, timed)}"
    told = f"{len(runs)} stretches of {len({group for *_, group in runs})} groups {between}"
    return tag(
        "svg", *parts, class_="chart timeline", viewBox=view_box(_WIDTH, bottom + _AXIS), role="img", aria_label=told
    )
