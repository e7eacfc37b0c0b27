"""The video benchmark: six pretexts, networks of three sizes, five factors and a distillation (arXiv 2504.06153).

``selftaught benchmark video`` trains a network for every cell, judges it on the targets and writes a row for each: what
it costs to have fewer clips, a harder task, another source, noise in the test clips, and how alike the networks' layers
are. ``--quick`` does so in half an hour on two cores, on motion that the program generates.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import evaluation
from selftaught._reading import kept_json
from selftaught.benchmark import video_judging as judging
from selftaught.benchmark.video_cells import (
    COMPLEXITY,
    ENCODERS,
    FACTORS,
    PRETEXTS,
    Plan,
    VideoCell,
    cells_of,
    nested_subsets,
)
from selftaught.data import open_source
from selftaught.errors import UserError
from selftaught.evaluation.corruptions import SEVERITIES
from selftaught.run.layout import write_json

__all__ = ["ENCODERS", "FACTORS", "PRETEXTS", "Outcome", "execute", "full_plan", "nested_subsets", "quick_plan", "run"]

DISTILLED = "video-distillation"
_QUICK_NOISE = (1, 3, 5)
Say = Callable[[str], None]
Row = dict[str, Any]


def quick_plan(steps: int | None = None) -> Plan:
    """Half an hour on two cores: a small network, generated motion, a second source with another shape."""
    source, other = (f"motion?train=320&test=160&shape={shape}" for shape in ("square", "disc"))
    return Plan(
        sources={"square": source, "disc": other},
        targets={"square": source, "disc": other},
        encoders=("cnn-small-video",),
        sizes=(80, 160, 320),
        preset="laptop",
        options={"steps": 60 if steps is None else steps, "batch_size": 16},
        protocols=("linear", "recall"),
    )


def full_plan(data: str, *, source: str | None = None, target: str | None = None, steps: int | None = None) -> Plan:
    """The paper's grid on a user's data.

    Args:
        data: labelled clips, "K400": what networks learn from, and are judged on where no ``target`` is named.
        source: other clips to learn from, "SSv2".
        target: labelled clips to judge on.
        steps: in place of the recipes' epochs.
    """
    sources = {"first": data} | ({"second": source} if source else {})
    targets = {"target": target} if target else {"first": data}
    options = {"test_clips": 10} | ({} if steps is None else {"steps": steps})
    return Plan(sources=sources, targets=targets, options=options)


class Outcome:
    """What a finished benchmark found: rows of ``results.csv`` by factor, and where they are."""

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        self.folder, self.rows = folder, rows

    def of(self, factor: str) -> list[Row]:
        """The rows of a factor."""
        return [row for row in self.rows if row["factor"] == factor]

    def summary(self) -> list[str]:
        """The tables as lines for a terminal."""
        lines: list[str] = []
        for factor in FACTORS:
            rows = self.of(factor)
            if not rows:
                continue
            lines += ["", factor]
            lines += [f"  {_subject(row)}: {_numbers(row)}" for row in _averaged(rows)]
        return [*lines, "", f"all rows: {self.folder / 'results.csv'}"]


def run(
    *,
    out: str | Path | None = None,
    quick: bool = False,
    data: str | None = None,
    source: str | None = None,
    target: str | None = None,
    methods: Sequence[str] | None = None,
    encoders: Sequence[str] | None = None,
    factors: Sequence[str] | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    dry_run: bool = False,
    say: Say = lambda line: None,
) -> Outcome:
    """Run the benchmark, or go on with it.

    Args:
        out: folder; what is done there is not done again (default runs/video-benchmark).
        quick: the small form.
        data: labelled clips to learn from; needed unless ``quick``.
        source: a second source, for the shift.
        target: labelled clips to judge on.
        methods: pretexts, in place of all six.
        encoders: networks, in place of all six.
        factors: in place of all.
        seeds: repetitions.
        steps: of each run.
        dry_run: open the data and tell what would be trained; train nothing.
        say: told what happens.

    Returns:
        What was found; after a dry run what an earlier one left in the folder.

    Raises:
        UserError: no data, unknown names; what a run refuses.
    """
    if quick == (data is not None):
        raise UserError("benchmark video: give --data SOURCE (labelled clips), or --quick for the small form")
    wanted = quick_plan(steps) if quick else full_plan(str(data), source=source, target=target, steps=steps)
    given = {"methods": methods, "encoders": encoders, "factors": factors}
    changes: dict[str, Any] = {name: tuple(value) for name, value in given.items() if value is not None}
    wanted = replace(wanted, **changes | ({} if seeds is None else {"seeds": seeds}))
    folder = Path(out or "runs/video-benchmark")
    if dry_run:
        for line in planned(wanted, folder):
            say(line)
        return Outcome(folder, [])
    return execute(wanted, folder, say=say, brief=quick)


def planned(wanted: Plan, folder: Path) -> list[str]:
    """What a plan would train, one line a network, after the data, which are opened to see whether they are there."""
    lines = []
    for role, specs in (("learn from", wanted.sources), ("judge on", wanted.targets)):
        for name, spec in specs.items():
            lines.append(f"{role} {name}: {open_source(spec, modality='clip', split='all').describe()}")
    cells = cells_of(wanted)
    there = [(folder / cell.name / "result.json").exists() for cell in cells]
    for cell, done in zip(cells, there, strict=True):
        task = f", {_task(cell)}" if _task(cell) else ""
        of = f"{cell.size:,} clips" if cell.size else "all clips"
        lines.append(
            f"{cell.method} with {cell.encoder}, {of} of {cell.source}{task}, seed {cell.seed}: "
            f"{', '.join(cell.factors)}{' (done)' if done else ''}"
        )
    students = wanted.seeds if "distillation" in wanted.factors else 0
    lines.append(f"{len(cells)} networks, {sum(there)} of them done, and {students} distilled; nothing was trained")
    return lines


def execute(wanted: Plan, folder: Path, *, say: Say = lambda line: None, brief: bool = False) -> Outcome:
    """Train and judge every cell of a plan; see `run`."""
    cells = cells_of(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    trained: dict[Any, Path] = {}
    for number, cell in enumerate(cells, start=1):
        say(f"{number} of {len(cells)}: {cell.name}")
        found = _cell(wanted, cell, folder, brief)
        rows += found
        _write(folder, rows)
        if "similarity" in cell.factors:
            trained[_named(cell)] = folder / cell.name
    if "similarity" in wanted.factors:
        rows += _similarity(trained, folder)
    if "distillation" in wanted.factors:
        rows += _distillation(wanted, cells, folder, say, brief)
    _write(folder, rows)
    return Outcome(folder, rows)


def _named(cell: VideoCell) -> Any:
    return (cell.method, cell.encoder, cell.seed)


# ---- cells -----------------------------------------------------------------------------------------------------------
def _cell(wanted: Plan, cell: VideoCell, folder: Path, brief: bool) -> list[Row]:
    """The rows of one cell: stored ones, or trained and judged now."""
    place = folder / cell.name
    stored = place / "result.json"
    asked = {"factors": sorted(cell.factors), "targets": wanted.targets, "protocols": list(wanted.protocols)}
    known = kept_json(stored)
    if known.get("asked") == asked and isinstance(known.get("rows"), list):
        return list(known["rows"])
    done = _trained(wanted, cell, place)
    facts: Row = {"method": cell.method, "encoder": cell.encoder, "source": cell.source, "size": cell.size}
    facts |= {"seed": cell.seed, "task": _task(cell)}
    rows: list[Row] = []
    for name, spec in wanted.targets.items():
        parts = judging.parts_of(done, spec)
        numbers = judging.judge(done, parts, wanted.protocols, _epochs(brief))
        rows += [
            facts | {"factor": factor, "target": name} | numbers
            for factor in cell.factors
            if factor in ("size", "complexity", "shift", "distillation")
        ]
        if name == next(iter(wanted.targets)):
            if "noise" in cell.factors:
                noisy = judging.under_noise(done, parts, _QUICK_NOISE if brief else SEVERITIES)
                rows += [facts | {"factor": "noise", "target": name} | row for row in noisy]
            if "similarity" in cell.factors:
                np.savez(place / "layers.npz", **judging.layers_of(done, parts[1]))  # type: ignore[arg-type]
    write_json(stored, {"asked": asked, "rows": rows})
    return rows


def _epochs(brief: bool) -> int:
    """Of fine-tuning."""
    return 3 if brief else 100


def _task(cell: VideoCell) -> str:
    option = COMPLEXITY.get(cell.method, ("",))[0]
    return f"{option}={cell.options[option]}" if option in cell.options else ""


def _trained(wanted: Plan, cell: VideoCell, place: Path) -> Any:
    """The cell's run: finished, gone on with, or begun."""
    from selftaught.run import load
    from selftaught.run.training import go_on, start

    path = place / "run"
    spec = wanted.sources[cell.source]
    train = open_source(spec, modality="clip", split="train", seed=0)
    if cell.size and cell.size < len(train):
        labels = train.labels if train.labels is not None else np.zeros(len(train), np.int64)
        train = train.subset(nested_subsets(labels, wanted.sizes)[cell.size])
    if (path / "encoder.safetensors").exists():
        return load(path)
    if (path / "config.yaml").exists():
        go_on(path, train, quiet=True)
        return load(path)
    fixed: dict[str, Any] = {"quiet": True, "knn_every": 0, "loggers": ["none"], "seed": cell.seed}
    start(cell.method, train, out=str(path), preset=wanted.preset, encoder=cell.encoder, **fixed | cell.options)
    return load(path)


# ---- similarity and distillation ------------------------------------------------------------------------------------
def _similarity(trained: dict[Any, Path], folder: Path) -> list[Row]:
    """CKA of all layers of all pairs of networks, and how much each network's own layers form a grid."""
    rows: list[Row] = []
    layers = {name: dict(np.load(place / "layers.npz")) for name, place in trained.items()}
    names = list(layers)
    for i, first in enumerate(names):
        for second in names[i:]:
            unbiased = len(next(iter(layers[first].values()))) < judging.LAYER_SAMPLES
            matrix = evaluation.cka_matrix(layers[first], layers[second], unbiased=unbiased)
            method, encoder, seed = first
            row: Row = {"factor": "similarity", "method": method, "encoder": encoder, "seed": seed}
            row |= {"other": "/".join(map(str, second)), "last_layer_cka": float(matrix[-1, -1])}
            if first == second and len(matrix) > 2:
                row["blockiness"] = evaluation.blockiness(matrix)
            rows.append(row)
            _write_matrix(folder / "cka", first, second, layers, matrix)
    return rows


def _write_matrix(folder: Path, first: Any, second: Any, layers: dict[Any, Any], matrix: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    title = "--".join("-".join(map(str, name)) for name in (first, second))
    with (folder / f"{title}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", *layers[second]])
        for name, values in zip(layers[first], matrix, strict=True):
            writer.writerow([name, *(f"{value:.4f}" for value in values)])


def _distillation(wanted: Plan, cells: list[VideoCell], folder: Path, say: Say, brief: bool) -> list[Row]:
    """A student of two pretexts that differ most in kind, beside its teachers."""
    from selftaught.run import load
    from selftaught.run.training import start

    rows: list[Row] = []
    for seed in range(wanted.seeds):
        base = [c for c in cells if "distillation" in c.factors and c.seed == seed and not _task(c)]
        chosen = [c for name in ("rspnet", "video-rotnet") for c in base if c.method == name]
        chosen = chosen if len(chosen) == 2 else base[:2]
        if len(chosen) < 2:
            say("no distillation: it takes two pretexts")
            return rows
        teachers = ",".join(str(folder / cell.name / "run") for cell in chosen)
        options = chosen[0].options | {"teachers": teachers}
        student = replace_cell(chosen[0], DISTILLED, options)
        place = folder / student.name
        say(f"student of {' and '.join(c.method for c in chosen)}: {student.name}")
        if not (place / "run" / "encoder.safetensors").exists():
            train = open_source(wanted.sources[student.source], modality="clip", split="train", seed=0)
            fixed: dict[str, Any] = {"quiet": True, "knn_every": 0, "loggers": ["none"], "seed": seed}
            start(DISTILLED, train, out=str(place / "run"), preset=wanted.preset, encoder=student.encoder,
                  **fixed | options)  # fmt: skip
        done = load(place / "run")
        for name, spec in wanted.targets.items():
            numbers = judging.judge(done, judging.parts_of(done, spec), wanted.protocols, _epochs(brief))
            row: Row = {"factor": "distillation", "method": DISTILLED, "encoder": student.encoder, "seed": seed}
            row |= {"source": student.source, "size": student.size, "target": name}
            rows.append(row | {"task": "+".join(c.method for c in chosen)} | numbers)
    return rows


def replace_cell(cell: VideoCell, method: str, options: dict[str, Any]) -> VideoCell:
    """The same cell for another method."""
    return replace(cell, method=method, options=options, factors=("distillation",))


# ---- rows ------------------------------------------------------------------------------------------------------------
_FIRST = ("factor", "method", "encoder", "source", "size", "task", "target", "seed", "noise", "severity", "other")


def _write(folder: Path, rows: list[Row]) -> None:
    """results.csv: one row for each cell, target and factor."""
    names = [name for name in _FIRST if any(name in row for row in rows)]
    names += sorted({name for row in rows for name in row} - set(names))
    part = folder / "results.csv.part"
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(folder / "results.csv")


def _subject(row: Row) -> str:
    shown = ("method", "encoder", "source", "size", "task", "target", "noise", "severity", "other")
    return ", ".join(f"{row[name]}" for name in shown if row.get(name) not in (None, "", 0))


def _numbers(row: Row) -> str:
    shown = ("finetune", "linear", "recall@1", "recall@5", "drop", "relative", "last_layer_cka", "blockiness")
    return ", ".join(f"{name} {row[name]:.3f}" for name in shown if name in row)


def _averaged(rows: list[Row]) -> Iterator[Row]:
    """Rows that differ in their seed alone, as one row of means."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_subject(row), []).append(row)
    for same in groups.values():
        means = {n: float(np.mean([r[n] for r in same])) for n, v in same[0].items() if isinstance(v, float)}
        yield same[0] | means
