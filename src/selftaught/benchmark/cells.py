"""One cell of a grid: an ordinary run in a folder of its own, trained or resumed, then judged; and what went wrong.

A cell is a plain dict, so that it crosses processes and clusters and can be read from ``cell.json``:

    {"key", "label", "method", "name", "data", "sources", "encoder", "start", "fraction", "seed", "options", "judge",
     "first", "hidden"}

``first`` marks a cell that others start from, ``hidden`` one that is in the grid for that alone.

What decides the trained weights is in its key; how it is judged is not: judging differently trains nothing anew.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftaught._paths import part_of
from selftaught._reading import kept_json
from selftaught.benchmark._cell import HOST, UNTRAINED, Cell
from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.run.layout import Layout, write_json

_IDENTITY = ("method", "sources", "encoder", "start", "fraction", "seed", "options")


def key_of(cell: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that name what decides the cell's weights."""
    parts = {name: cell.get(name) for name in _IDENTITY} | {"sources": list(cell["sources"].values())}
    parts["start"] = cell["start"]["key"] if "key" in cell["start"] else cell["start"]
    return digest(json.dumps(parts, sort_keys=True, default=str))[:16]


def folder_of(cells: Path, cell: Mapping[str, Any]) -> Path:
    """The cell's folder under ``cells``: the one with its key, whatever it was called then, else a readable name."""
    there = next(cells.glob(f"*-{cell['key']}"), None)
    if there is not None:
        return there
    words = [cell.get("name", ""), cell.get("data", ""), f"seed{cell.get('seed', 0)}"]
    plain = "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in str(word)) for word in words)
    return cells / f"{plain[:60]}-{cell['key']}"


def facts(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What every record of a cell says of it."""
    found = {name: cell[name] for name in ("key", "name", "method", "data", "seed")}
    encoder = cell["encoder"] or cell["options"].get("encoder") or "the recipe's"
    return found | {"encoder": encoder, "start": cell["start"]["name"], "own": bool(cell["judge"]["own"])}


class Place:
    """Where a cell lies: ``run/``, ``result.json`` once it is done, ``error.json`` where it failed."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.run = self.folder / "run"
        self.cell, self.result, self.error = (self.folder / f"{name}.json" for name in ("cell", "result", "error"))

    def state(self, cell: Mapping[str, Any]) -> str:
        """done, failed, begun or new; done only where it was judged as the cell asks."""
        if self.result.exists():
            stored = kept_json(self.result)
            return "done" if stored.get("judge") == cell["judge"] else "begun"
        if self.error.exists():
            return "failed"
        return "begun" if self.run.exists() else "new"

    def records(self) -> list[dict[str, Any]]:
        """What was measured; empty where it is not done."""
        return list(kept_json(self.result).get("records", [])) if self.result.exists() else []

    def failure(self) -> str:
        """The error in one line."""
        return str(kept_json(self.error).get("error", "")) if self.error.exists() else ""

    def steps(self) -> int:
        """Optimiser steps written to metrics.csv so far."""
        try:
            with (self.run / "metrics.csv").open("rb") as file:
                file.seek(max(0, os.path.getsize(file.name) - 4096))
                last = file.read().decode(errors="replace").strip().splitlines()[-1]
            return int(last.split(",")[1])
        except (OSError, ValueError, IndexError):
            return 0


def execute(cell: Cell, folder: str) -> str:
    """Do one cell; whatever goes wrong is written to its folder and returned in one line, never raised.

    Args:
        cell: see above.
        folder: the cell's folder, made where it is missing.

    Returns:
        "" when it is done, else the error.

    Raises:
        Interrupted, KeyboardInterrupt: a signal stopped it; the run is saved and goes on at the next call.
    """
    place = Place(folder)
    if place.state(cell) == "done":
        return ""
    place.folder.mkdir(parents=True, exist_ok=True)
    write_json(place.cell, cell)
    began = time.monotonic()
    try:
        records = _done(cell, place)
    except KeyboardInterrupt:
        raise
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            raise
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        line = " ".join(told.split())[:500]
        record_failure(cell, folder, line, traceback.format_exc())
        return line
    seconds = round(time.monotonic() - began, 1)
    place.error.unlink(missing_ok=True)
    write_json(place.result, {"judge": cell["judge"], "seconds": seconds, "records": records})
    return ""


def record_failure(cell: Cell, folder: str, line: str, trace: str = "") -> None:
    """Keep why a cell failed."""
    place = Place(folder)
    place.folder.mkdir(parents=True, exist_ok=True)
    write_json(place.cell, cell)
    write_json(place.error, {"error": line, "traceback": trace})


def _done(cell: Cell, place: Place) -> list[dict[str, Any]]:
    from selftaught.benchmark import judging

    run = trained(cell, place)
    found = judging.judge(run, cell)
    return [facts(cell) | record for record in found]


def trained(cell: Cell, place: Place) -> Any:
    """The cell's run: as it is, gone on with, or begun."""
    from selftaught.benchmark.mixture import training_data
    from selftaught.run import load, locks
    from selftaught.run.training import go_on, start

    layout = Layout(place.run)
    data = training_data(cell["sources"], cell["data"], fraction=cell["fraction"], seed=cell["seed"])
    if layout.config.exists() and layout.weights.exists() and _finished(layout):
        locks.sweep(place.run / locks.LOCK)
        return load(place.run)
    loaders = cell.get("loaders")
    if layout.config.exists():
        go_on(place.run, data, quiet=True, workers=loaders)
        return load(place.run)
    if place.run.exists():
        shutil.rmtree(place.run)
    method = HOST if cell["method"] == UNTRAINED else cell["method"]
    options = train_options(cell, place)
    if cell["fraction"] < 1:
        options |= _same_budget(method, options, len(data), cell["fraction"])
    os.environ.pop("SELFTAUGHT_RUN_FOLDER", None)
    start(method, data, quiet=True, out=str(place.run), workers=loaders, **options)
    return load(place.run)


def _same_budget(method: str, options: dict[str, Any], samples: int, fraction: float) -> dict[str, Any]:
    """As many optimiser steps with a share of the labels as with all of them, batches no larger than the share."""
    from selftaught import methods
    from selftaught.run.configuration import resolve

    settings, _ = resolve(methods.get(method), "image", options)
    found: dict[str, Any] = {"batch_size": min(settings.batch_size, samples)}
    if settings.steps is None and settings.epochs is not None:
        found["steps"] = max(1, round(settings.epochs * max(1, round(samples / fraction) // settings.batch_size)))
    return found


def _finished(layout: Layout) -> bool:
    from selftaught import methods

    kind = methods.get(layout.read_config()["method"])
    return set(kind.stages) <= set(layout.read_state()["stages"])


def train_options(cell: Cell, place: Place) -> dict[str, Any]:
    """Options for ``selftaught.train``: the cell's, its encoder, its start, its seed."""
    options = {"knn_every": 0, "loggers": ["none"]} | dict(cell["options"]) | {"seed": cell["seed"]}
    if cell["encoder"]:
        options["encoder"] = cell["encoder"]
    begin = cell["start"]
    if begin.get("pretrained"):
        options["pretrained"] = True
    elif "run" in begin:
        options["init"] = begin["run"]
    elif "key" in begin:
        options["init"] = str(_encoder_of(folder_of(place.folder.parent, begin), cell))
    if cell["method"] == UNTRAINED:
        options |= {"steps": 1, "lr": 0.0, "weight_decay": 0.0}
        options.pop("epochs", None)
    return options


def _encoder_of(folder: Path, cell: Cell) -> Path:
    """A folder with the bare encoder of a finished run, whatever that run delivers."""
    from safetensors.torch import save_file

    from selftaught.run import load

    place, bare = Place(folder), folder / "encoder"
    if not place.result.exists():
        why = place.failure() or "it is not done"
        raise UserError(f"initialisation {cell['start']['name']}: {why}")
    target = Layout(bare).weights
    if not target.exists():
        method = load(place.run).method
        bare.mkdir(exist_ok=True)
        encoder = method.encoder if method.output == "classes" else method.deliverable()
        part = part_of(target)
        weights: dict[str, Any] = encoder.state_dict()  # type: ignore[union-attr]
        save_file({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, part)
        part.replace(target)
    return bare
