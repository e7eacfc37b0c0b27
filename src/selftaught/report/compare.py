"""Several runs side by side: numbers with the best marked, options that differ, curves on one chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from selftaught.report import curves
from selftaught.report.curves import role_of
from selftaught.report.lines import Chart, Line, both_widths, legend
from selftaught.report.svg import kind
from selftaught.report.tables import best_of, protocol_rows
from selftaught.report.text import NOTHING, decimals, direction, duration, flatten, interval, known, number
from selftaught.report.verdict import Score
from selftaught.report.verdict import compare as weigh

Cell = dict[str, Any]

_SHORT = {"random": "untrained", "raw": "raw"}


def unique_titles(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name per run: its title, else its method; the second of the same name is numbered."""
    seen: Counter[str] = Counter()
    titles = []
    for i, run in enumerate(runs):
        name = run.get("title") or run.get("method_title") or run.get("method") or f"run {i + 1}"
        seen[name] += 1
        titles.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return titles


def sources_differ(runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the runs name different data, by fingerprint where all have one, else by name."""
    sources = [run.get("source") or {} for run in runs]
    key = "fingerprint" if all(source.get("fingerprint") for source in sources) else "name"
    return len({source.get(key) for source in sources if source.get(key)}) > 1


def steps_differ(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """The steps that every run was trained for, by its name; empty where they are the same, or are not known."""
    last = [known((run.get("metrics") or {}).get("step")) for run in runs]
    steps = [(name, int(s[-1])) for name, s in zip(unique_titles(runs), last, strict=True) if s]
    return steps if len({count for _, count in steps}) > 1 else []


def table(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups of rows: each row has a name and one cell per run, the best marked and those level with it too."""
    cells: dict[tuple[str, str], list[Cell | None]] = {}
    better: dict[tuple[str, str], str] = {}
    for k, run in enumerate(runs):
        for key, cell, side in _measurements(run):
            cells.setdefault(key, [None] * len(runs))[k] = cell
            better[key] = side
    groups: dict[str, list[dict[str, Any]]] = {}
    for key, row in sorted(cells.items(), key=lambda item: _rank(item[0])):
        groups.setdefault(key[0], []).append(_row(key[1], row, better[key]))
    return [{"name": name, "rows": rows} for name, rows in groups.items()]


def _rank(key: tuple[str, str]) -> tuple[int, float]:
    groups = ("Label efficiency", "Restoration", "", "Training")
    group, name = key
    place = groups.index(group) if group in groups else 2
    return place, float(name.split()[0].replace(",", "")) if place == 0 else 0.0


def _measurements(run: Mapping[str, Any]) -> list[tuple[tuple[str, str], Cell, str]]:
    found = _label_cells(run.get("label_efficiency") or {})
    for key, name in (("psnr", "PSNR, dB"), ("ssim", "SSIM")):
        after = known([item.get(key) for item in run.get("restoration") or []])
        before = known([item.get(f"{key}_noisy") for item in run.get("restoration") or []])
        if after:
            refs = {"input": sum(before) / len(before)} if before else {}
            found.append((("Restoration", name), {"mean": sum(after) / len(after), "refs": refs}, "high"))
    for row in protocol_rows(run.get("protocols") or []):
        this = row.cells["this"]
        if this:
            refs = {role: other["mean"] for role in ("random", "raw") if (other := row.cells[role])}
            found.append(((row.protocol, row.label), {**this, "refs": refs}, row.better))
    metrics = run.get("metrics") or {}
    loss = known((metrics.get("series") or {}).get("loss"))
    rank = curves.effective_rank((run.get("spectrum") or {}).get("this"))
    last = (
        *((f"online {title}, last", _last(metrics, score), "high") for score, title in curves.SCORES.items()),
        ("loss, last", loss[-1] if loss else None, "none"),
        ("effective rank, centred", rank, "none"),
        ("time", run.get("seconds"), "none"),
    )
    found += [
        (("Training", name), {"mean": value, "refs": {}}, side) for name, value, side in last if value is not None
    ]
    return found


def _label_cells(section: Mapping[str, Any]) -> list[tuple[tuple[str, str], Cell, str]]:
    found = []
    by_role = {role_of(curve): curve for curve in reversed(section.get("curves") or [])}
    own = by_role.get("this")
    for i, x in enumerate(section.get("x") or []):
        if own is None or x is None or own["mean"][i] is None:
            continue
        low, high = (own[k][i] if own.get(k) else None for k in ("low", "high"))
        refs = {role: by_role[role]["mean"][i] for role in ("random", "raw") if role in by_role}
        cell = {
            "mean": own["mean"][i],
            "low": low,
            "high": high,
            "refs": {r: v for r, v in refs.items() if v is not None},
        }
        name = f"{number(x)} label{'' if x == 1 else 's'} per class"
        found.append((("Label efficiency", name), cell, direction(section.get("metric") or "accuracy")))
    return found


def _row(name: str, cells: list[Cell | None], better: str) -> dict[str, Any]:
    places = decimals([cell["mean"] for cell in cells if cell])
    best = best_of({str(k): round(cell["mean"], places) for k, cell in enumerate(cells) if cell}, better)
    leader = cells[int(best)] if best is not None else None
    shown = []
    for k, cell in enumerate(cells):
        if cell is None:
            shown.append({"text": NOTHING, "spread": "", "refs": "", "mark": ""})
            continue
        mark = "best" if str(k) == best else ""
        if leader is not None and not mark and None not in (cell.get("low"), leader.get("low")):
            mark = "level" if weigh(_score(leader), _score(cell), better) == "level" else ""
        refs = " · ".join(f"{_SHORT.get(role, role)} {number(value, places)}" for role, value in cell["refs"].items())
        text = duration(cell["mean"]) if name == "time" else number(cell["mean"], places)
        shown.append(
            {"text": text, "spread": interval(cell.get("low"), cell.get("high"), places), "refs": refs, "mark": mark}
        )
    return {"name": name, "cells": shown, "better": better}


def _score(cell: Cell) -> Score:
    return Score("", cell["mean"], cell.get("low"), cell.get("high"))


def differences(runs: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The options whose values differ, with those off the most common value marked; and how many options agree."""
    flat = []
    for run in runs:
        source = run.get("source") or {}
        head = {"method": run.get("method") or run.get("method_title"), "data": source.get("name")}
        flat.append({k: v for k, v in head.items() if v} | flatten(run.get("config") or {}))
    names = list(dict.fromkeys(name for config in flat for name in config))
    rows, alike = [], 0
    for name in names:
        values = [config.get(name) for config in flat]
        if len(set(values)) == 1:
            alike += 1
            continue
        common, count = Counter(values).most_common(1)[0]
        usual = common if count > 1 else object()
        cells = [{"text": NOTHING if v is None else v, "off": v != usual} for v in values]
        rows.append({"name": name, "cells": cells})
    return rows, alike


def charts(runs: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> list[dict[str, Any]]:
    """Label efficiency, k-NN and loss of all runs, each on one chart."""
    made = [
        (_label_overlay(runs, titles), "Label efficiency of every run. Bands are the intervals given with the runs."),
        *(
            (_score_overlay(runs, titles, score), f"Online {title} accuracy during training.")
            for score, title in curves.SCORES.items()
        ),
        (_loss_overlay(runs, titles), "Total loss. Compare its height only between runs of one objective."),
    ]
    return [
        {
            "svg": both_widths(chart, (560, 340), (352, 280)),
            "legend": legend(chart),
            "caption": said,
            "name": chart.y_label,
        }
        for chart, said in made
        if chart is not None
    ]


def _label_overlay(runs: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> Chart | None:
    sections = [run.get("label_efficiency") or {} for run in runs]
    raw: list[Line] = []
    own: list[Line] = []
    for k, section in enumerate(sections):
        for line in curves.label_lines(section):
            if line.role == "raw" and not raw and not sources_differ(runs):
                raw.append(line)
            if line.role == "this":
                own.append(Line(titles[k], line.x, line.y, line.low, line.high, kind(k), dots=True))
                break
    if not own:
        return None
    first = next(section for section in sections if curves.label_lines(section))
    return curves.label_chart(first if not sources_differ(runs) else {**first, "chance": None}, raw + own)


def _last(metrics: Mapping[str, Any], score: str) -> float | None:
    found = curves.score_points(metrics, score)[1]
    return found[-1] if found else None


def _score_overlay(runs: Sequence[Mapping[str, Any]], titles: Sequence[str], score: str) -> Chart | None:
    lines = []
    for k, run in enumerate(runs):
        x, y = curves.score_points(run.get("metrics") or {}, score)
        if x:
            lines.append(Line(titles[k], x, y, role=kind(k), dots=len(x) <= 20))
    if not lines:
        return None
    return Chart(
        tuple(lines),
        "step",
        f"online {curves.SCORES[score]} accuracy",
        x_include=(0.0,),
        y_include=(0.0,),
        y_high=1.0,
        point="step {}",
        places=3,
    )


def _loss_overlay(runs: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> Chart | None:
    lines = []
    for k, run in enumerate(runs):
        for stage, metrics in curves.by_stage(run.get("metrics") or {}):
            steps, loss = metrics.get("step") or [], (metrics.get("series") or {}).get("loss")
            name = f"{titles[k]}, {stage}" if stage else titles[k]
            line = curves.training_line(steps, loss, name, kind(k), band=False) if loss else None
            if line is not None:
                lines.append(line)
    return Chart(tuple(lines), "step", "loss", x_include=(0.0,), point="step {}") if lines else None
