"""``selftaught benchmark survey``: a representative of every branch, with one encoder and one budget, in one table.

The comparison that the survey of Khan et al. (2024, arXiv 2408.17059) draws from other papers' numbers, run: the same
images, transformer, seeds, optimiser, crops and budget (steps or seconds) for all; then k-NN and linear probe of the
frozen features, fine-tuning, seconds, memory and needs of each. The pattern to look for: methods that compare views win
frozen, masked ones catch up or win when fine-tuned, hybrids have both, pretext tasks trail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftaught import catalog
from selftaught._reading import kept_json
from selftaught.benchmark import grid
from selftaught.benchmark._cell import UNTRAINED
from selftaught.benchmark.survey_table import Row, branch_differences, markdown, rows_of, write_csv_table
from selftaught.errors import UserError
from selftaught.run.layout import is_free, write_json, write_text, write_yaml

METHODS = (
    "moco-v3", "dino", "msn", "mae", "simmim", "beit", "maskfeat", "ibot", "rotation", "jigsaw", "relative-position",
)  # fmt: skip
"""The representatives, branch by branch."""
BESIDE = (UNTRAINED, "supervised")
"""What they are compared with."""

LAPTOP: dict[str, Any] = {
    "encoder": "vit-micro", "image_size": 32, "augment": "grey", "crop": 0.4, "batch_size": 64, "lr": 1e-3,
    "lr_scaling": "none", "optimizer": "adamw", "weight_decay": 0.05, "warmup_epochs": 1.0, "precision": "32",
}  # fmt: skip
"""Common options on a processor; ``FULL`` on an accelerator."""
FULL: dict[str, Any] = {
    "encoder": "vit_small_patch16_224", "image_size": 224, "batch_size": 256, "lr": 5e-4, "lr_scaling": "linear",
    "optimizer": "adamw", "weight_decay": 0.05, "warmup_epochs": 10.0, "crop": 0.3,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "moco-v3": {"predictor": "none"},
    "dino": {"local_crops": 0},
    "beit": {"words": 128, "tokeniser_steps": 10},
    "mae": {"decoder": "64-1-4"},
    "jigsaw": {"permutations": 100},
}
"""What a method needs of its own in the small form, beside its laptop preset."""
DATA, STEPS = "digits?n=1000", 250
_LIMITS = (500, 1000)


@dataclass(frozen=True)
class Finished:
    """What the survey gave.

    Args:
        folder: where everything lies: ``survey.md``, ``survey.csv``, ``survey.json``, and the grid's own pages.
        grid: what the grid gave.
        rows: a row of the table per method.
        differences: protocol -> view-based methods minus masked ones, paired by seed, and others.
    """

    folder: Path
    grid: grid.Finished
    rows: list[Row]
    differences: dict[str, dict[str, Any]]

    def summary(self) -> list[str]:
        """The table and what it says, for a terminal."""
        return [*self.grid.summary(), "", markdown(self.rows), "", *sentences(self.differences)]


def run(
    *,
    data: str | Path = DATA,
    methods: Sequence[str] = METHODS,
    encoder: str | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    seeds: int = 3,
    full: bool = False,
    out: str | Path | None = None,
    workers: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Finished:
    """Run the survey, or go on with it.

    Args:
        data: source with labels (they serve the judging, and the supervised row).
        methods: slugs of any methods that learn from images with one encoder.
        encoder: the one encoder of all; default a tiny ViT, with ``full`` ViT-S/16.
        steps: the budget: optimiser steps of each method (default 250, with ``full`` 10,000).
        seconds: the budget: seconds of training of each method, turned into steps by a measured step.
        seeds: repetitions.
        full: 224 pixels and the methods' paper options, for an accelerator.
        out: folder; default ``benchmark-survey``. Called again with it, the survey goes on.
        workers: cells at a time.
        say: called with a line now and then.

    Raises:
        UserError: both budgets, unknown names, as grids raise it.
    """
    if steps is not None and seconds is not None:
        raise UserError("--steps and --seconds: one budget, please")
    folder = Path(out) if out is not None else Path("benchmark-survey")
    common = dict(FULL if full else LAPTOP) | ({"encoder": encoder} if encoder else {})
    plain = {slug: options_of(slug, common, full) for slug in (*methods, *BESIDE) if slug != UNTRAINED}
    _make(folder, str(data), list(methods), seeds)
    costs = _costs(folder, str(data), plain, full, say)
    budget = {slug: _steps(costs[slug], steps, seconds, full) for slug in plain}
    config = grid_config(str(data), methods, common, plain, budget, seeds)
    found = grid.run(config, out=folder, workers=workers, loaders=None if full else 0, say=say)
    rows = rows_of(found.records, costs, budget, int(common["batch_size"]))
    differences = branch_differences(rows)
    title = f"{common['encoder']} on {data}, {seconds:g} seconds each" if seconds else f"{common['encoder']} on {data}"
    told = [f"# Survey: {title}", "", markdown(rows), "", *sentences(differences), ""]
    write_text(folder / "survey.md", "\n".join(told))
    write_csv_table(rows, folder / "survey.csv")
    about = {"data": str(data), "options": common, "steps": budget, "seconds": seconds, "seeds": seeds}
    write_json(folder / "survey.json", about | {"rows": [row.to_dict() for row in rows], "differences": differences})
    return Finished(folder, found, rows, differences)


def options_of(slug: str, common: Mapping[str, Any], full: bool) -> dict[str, Any]:
    """A method's options: its laptop preset (``full``: its first), then what all have in common, then its own needs."""
    presets = catalog.presets(slug)
    if full:
        first = next(iter(presets), None)
        return ({"preset": first} if first else {}) | dict(common)
    return ({"preset": "laptop"} if "laptop" in presets else {}) | dict(common) | OWN.get(slug, {})


def grid_config(
    data: str,
    methods: Sequence[str],
    common: Mapping[str, Any],
    options: Mapping[str, Mapping[str, Any]],
    steps: Mapping[str, int],
    seeds: int,
) -> dict[str, Any]:
    """The survey as a grid: see :mod:`selftaught.benchmark.plan`."""
    entries = [
        {"method": slug, "name": slug}
        | {k: v for k, v in options[slug].items() if k != "encoder"}
        | {"steps": steps[slug]}
        for slug in (*methods, *(slug for slug in BESIDE if slug != UNTRAINED))
    ]
    bare = {k: v for k, v in common.items() if k != "encoder"}
    entries.append({"method": UNTRAINED, "name": UNTRAINED, "preset": "laptop"} | bare)
    return {
        "name": "survey", "title": "One representative of every branch, one encoder, one budget", "methods": entries,
        "sources": {"survey": data}, "data": ["survey"], "encoders": [common["encoder"]], "seeds": seeds,
        "probe": ["linear", "finetune"], "recipe": "vit", "limits": list(_LIMITS),
    }  # fmt: skip


def _make(folder: Path, data: str, methods: list[str], seeds: int) -> None:
    """A folder that the grid will take for its own, so that costs can be kept there first."""
    if not (folder / "grid.yaml").exists():
        if not is_free(folder):
            raise UserError(f"--out {folder}: holds something else than a survey; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / "grid.yaml", {"name": "survey", "data": [data], "methods": methods, "seeds": seeds})


def _costs(
    folder: Path, data: str, options: Mapping[str, Mapping[str, Any]], full: bool, say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Cost of a step of each method; those that were measured with the same options are taken from ``costs.json``."""
    from selftaught.benchmark.costs import measure

    path = folder / "costs.json"
    kept: dict[str, Any] = kept_json(path)
    for slug, given in options.items():
        asked = {"data": data} | dict(given)
        if kept.get(slug, {}).get("options") == asked:
            continue
        kept[slug] = {"options": asked} | measure(slug, data, given if full else {**given, "workers": 0})
        write_json(path, kept)
        say(f"{slug}: {kept[slug]['seconds']:.3f} s and {kept[slug]['megabytes']:.0f} MB a step")
    return {slug: {k: v for k, v in kept[slug].items() if k != "options"} for slug in options}


def _steps(cost: Mapping[str, float], steps: int | None, seconds: float | None, full: bool) -> int:
    if seconds is not None:
        return max(1, round(seconds / cost["seconds"]))
    return steps or (10_000 if full else STEPS)


def sentences(differences: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The pattern in words: a line per protocol and pair of branches."""
    lines = []
    for protocol, pairs in differences.items():
        for pair, difference in pairs.items():
            low, high = difference.get("low"), difference.get("high")
            if low is None or high is None:
                interval, said = "", "one seed tells nothing of chance"
            else:
                interval = f" [{low:+.3f}, {high:+.3f}]"
                said = "no difference that this size could show" if low <= 0 <= high else "shown"
            lines.append(f"- {protocol}, {pair}: {difference['mean']:+.3f}{interval}: {said}.")
    return lines
