"""From sections of a run to line charts: loss, terms, k-NN, label efficiency, spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from selftaught.report.lines import Chart, Line, thin
from selftaught.report.svg import kind
from selftaught.report.text import known

_ORDER = {"raw": 0, "random": 1, "other": 2, "original": 3, "this": 4}
#: Names of what numbers are shown for.
ROLE_NAMES = {
    "this": "this encoder", "original": "original model", "retrained": "retrained model",
    "random": "untrained encoder", "raw": "raw input",
}  # fmt: skip


SCORES = {"knn": "k-NN", "probe": "linear probe"}
"""Accuracies that are taken while a run learns, and what each is called."""


def role_of(curve: Mapping[str, Any]) -> str:
    """The role of a label-efficiency curve: as given, else by its name, else this encoder."""
    name = str(curve.get("name", "")).lower()
    guess = "random" if "random" in name or "untrained" in name else "raw" if "raw" in name else "this"
    return str(curve.get("role") or guess)


def training_line(steps: Sequence[Any], values: Sequence[Any], name: str, role: str, band: bool = True) -> Line | None:
    """One training curve, thinned to what a screen can show; ``None`` without any value."""
    pairs = sorted(((x, y) for x, y in zip(steps, values, strict=True) if x is not None), key=lambda pair: pair[0])
    if not known([y for _, y in pairs]):
        return None
    x, y, low, high = thin([p[0] for p in pairs], [p[1] for p in pairs])
    thinned = len(x) < len(pairs) and band
    return Line(name, x, y, low if thinned else None, high if thinned else None, role)


def by_stage(metrics: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The metrics of every stage by themselves, with its name; a single one, without a name, where there are no stages.

    Stages have losses of their own, on scales of their own: one curve through all of them would compare the unlike.
    """
    stages, series = metrics.get("stage") or [], metrics.get("series") or {}
    names = list(dict.fromkeys(stages))
    if len(names) < 2:
        return [("", dict(metrics))]
    steps = metrics.get("step") or []
    found = []
    for name in names:
        rows = [i for i, stage in enumerate(stages) if stage == name]
        own = {steps[i] for i in rows}
        traces: dict[str, Any] = {
            k: [series[k][i] for i in rows] for k in ("loss", "lr", "throughput") if series.get(k)
        }
        traces["terms"] = {k: [values[i] for i in rows] for k, values in (series.get("terms") or {}).items()}
        traces |= {k: [point for point in series.get(k) or [] if point[0] in own] for k in SCORES}
        found.append((name, {**metrics, "step": [steps[i] for i in rows], "series": traces}))
    return found


def last_learning(metrics: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The last stage of :func:`by_stage` that has learning rates: one without them chooses or measures, and what it
    notes is no loss that fell. The last one of all where none has any.
    """
    stages = by_stage(metrics)
    learning = [one for one in stages if known((one[1].get("series") or {}).get("lr"))]
    return (learning or stages)[-1]


def loss_chart(metrics: Mapping[str, Any]) -> Chart | None:
    """The total loss over the steps."""
    return _trace(metrics, (metrics.get("series") or {}).get("loss"), "loss", "this")


def score_points(metrics: Mapping[str, Any], name: str) -> tuple[list[float], list[float]]:
    """Steps and accuracies of a score of the training (see `SCORES`), without those that have no value."""
    pairs = [(s, a) for s, a in (metrics.get("series") or {}).get(name) or [] if s is not None and a is not None]
    return [s for s, _ in pairs], [a for _, a in pairs]


def score_chart(metrics: Mapping[str, Any], name: str) -> Chart | None:
    """Accuracy of a score of the training over the steps, with chance."""
    x, y = score_points(metrics, name)
    if not x:
        return None
    chance = metrics.get("chance")
    rule = (chance, "chance") if chance is not None else None
    line = Line(f"online {SCORES[name]}", x, y, role="this", dots=len(x) <= 30)
    return Chart(
        (line,),
        "step",
        f"{SCORES[name]} accuracy",
        x_include=(0.0,),
        y_include=(0.0,),
        y_high=1.0,
        rule=rule,
        point="step {}",
        places=3,
    )


def small_charts(metrics: Mapping[str, Any]) -> list[Chart]:
    """Each loss term, then learning rate and throughput: one small chart per curve, since their scales differ."""
    series = metrics.get("series") or {}
    wanted = [(name, values) for name, values in (series.get("terms") or {}).items()]
    wanted += [
        ("learning rate", series.get("lr")),
        (f"throughput, {metrics.get('unit', 'samples/s')}", series.get("throughput")),
    ]
    charts = [_trace(metrics, values, name, "c6") for name, values in wanted]
    return [chart for chart in charts if chart is not None]


def _trace(metrics: Mapping[str, Any], values: Sequence[Any] | None, name: str, role: str) -> Chart | None:
    line = training_line(metrics.get("step") or [], values or [None] * len(metrics.get("step") or []), name, role)
    return Chart((line,), "step", name, x_include=(0.0,), point="step {}") if line else None


def label_lines(section: Mapping[str, Any]) -> list[Line]:
    """The label-efficiency curves, baselines first so that this encoder lies on top."""
    x = section.get("x") or []
    lines, others = [], 0
    for curve in section.get("curves") or []:
        role = role_of(curve)
        keep = [i for i, at in enumerate(x) if at is not None and at > 0]
        if not known([curve["mean"][i] for i in keep]):
            continue
        low, high = ([curve[k][i] for i in keep] if curve.get(k) else None for k in ("low", "high"))
        style = role
        if role == "other":
            style, others = kind(others + 2), others + 1
        name = curve.get("name") or ROLE_NAMES.get(role, "curve")
        lines.append(Line(name, [x[i] for i in keep], [curve["mean"][i] for i in keep], low, high, style, dots=True))
    return sorted(lines, key=lambda line: _ORDER.get(line.role, 2))


def label_chart(section: Mapping[str, Any], lines: Sequence[Line] | None = None) -> Chart | None:
    """Score against labels per class on a logarithmic axis, with chance."""
    lines = label_lines(section) if lines is None else lines
    if not lines:
        return None
    chance = section.get("chance")
    ticks = tuple(sorted({x for line in lines for x in line.x}))
    shares = all(0 <= v <= 1 for line in lines for v in known(line.y))
    return Chart(
        tuple(lines),
        "labels per class",
        section.get("metric") or "accuracy",
        x_log=True,
        x_ticks=ticks,
        y_include=(0.0,) if shares else (),
        y_high=1.0 if shares else None,
        rule=(chance, "chance") if chance is not None else None,
        point="{} labels per class",
        places=3 if shares else None,
    )


def spectrum_chart(section: Mapping[str, Any]) -> Chart | None:
    """Singular values over the largest one, log y, against their rank."""
    lines = []
    for role in ("raw", "random", "original", "this"):
        values = known(section.get(role))
        largest = max(values, default=0.0)
        if largest > 0:
            y = [v / largest if v / largest > 1e-8 else None for v in sorted(values, reverse=True)]
            lines.append(Line(ROLE_NAMES[role], [float(i + 1) for i in range(len(y))], y, role=role))
    if not lines:
        return None
    return Chart(tuple(lines), "rank of the singular value", "singular value / largest", y_log=True, point="number {}")


def tasks_chart(section: Mapping[str, Any]) -> Chart | None:
    """How a number of each task moves while further ones are learnt; a line per task."""
    names, rows = section.get("names") or [], section.get("rows") or []
    lines = []
    for i, name in enumerate(names):
        seen = [(float(t + 1), row[i]) for t, row in enumerate(rows) if len(row) > i]
        if seen:
            x, y = [t for t, _ in seen], [value for _, value in seen]
            lines.append(Line(str(name), x, y, role=f"c{i % 8}", dots=True))
    if not lines:
        return None
    ticks = tuple(float(t + 1) for t in range(len(rows)))
    return Chart(tuple(lines), "tasks learnt", str(section.get("metric") or ""), x_ticks=ticks, point="after task {}")


def frames_chart(item: Mapping[str, Any]) -> Chart | None:
    """PSNR of a clip frame by frame, restored and input."""
    lines = []
    for key, name, role in (("noisy", "input", "raw"), ("restored", "restored", "this")):
        values = item.get(key) or []
        if known(values):
            lines.append(Line(name, [float(t) for t in range(len(values))], values, role=role, dots=len(values) < 24))
    return Chart(tuple(lines), "frame", "PSNR in dB", point="frame {}", places=2) if lines else None


def effective_rank(values: Sequence[float | None] | None) -> float | None:
    """Effective rank of a spectrum: the exponential of the entropy of the singular values over their sum.

    O. Roy, M. Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007. It lies between 1
    (all in one direction: collapse) and the number of values (all alike). ``None`` without a value above zero.
    Of the centred embeddings' spectrum it is larger than RankMe, which leaves the mean in.
    """
    positive = [v for v in known(values) if v > 0]
    total = sum(positive)
    if total <= 0:
        return None
    return math.exp(-sum(v / total * math.log(v / total) for v in positive))
