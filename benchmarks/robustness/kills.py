"""Kills before and after every file is put in place: what goes on must end as if it had never been killed.

    python benchmarks/robustness/kills.py [--only WORDS]

Training: every kind of run that keeps something of its own (stages, averaged and best weights, a state per sample, a
queue, two networks in turn, a run changed into another): SIGKILL, then ``--resume``, or the same command where nothing
had been begun; weights, checkpoints of stages and the rows of metrics.csv must be those of the uncut run, to the bit.
Other commands: SIGKILL, the same command again, and every file must be as the uncut command leaves it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trials import Table, Trial, command, forked, start, tiny_input, tiny_run

from tests.harness import TINY_RUNS, killing, train_tiny

_CLOCK = {"seconds", "epoch seconds", "samples/s", "samples_per_second", "time", "date", "began", "elapsed", "version"}


def killed(work: Callable[[], Any], moment: int) -> Trial:
    """Do something in a process of its own that is killed at a moment of putting files in place."""

    def dying() -> Any:
        with killing(moment, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            return work()

    return forked(dying)


class Refused(Exception):
    """The uncut command is refused: there is nothing to kill."""


def moments(work: Callable[[], Any], note: Path) -> int:
    """Do it whole, and count the moments at which it could be killed."""

    def counting() -> Any:
        with killing(None) as passed:
            code = work()
        note.write_text(str(passed[0]))
        return code

    trial = forked(counting)
    if trial.code == 2 and trial.said:
        raise Refused(trial.said)
    if trial.code != 0:
        raise RuntimeError(f"the uncut command failed: {trial.err[-2000:]}")
    return int(note.read_text())


# ---- training --------------------------------------------------------------------------------------------------------
def learnt(run: Path) -> dict[str, Any]:
    """What a run must end in: weights, states at the ends of stages, and the rows of its metrics without clocks."""
    from safetensors.numpy import load_file

    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.suffix == ".safetensors":
            found |= {f"{name} {k}": v.tobytes() for k, v in load_file(path).items()}
        elif path.name == "final.pt":
            found[name] = _tensors(path)
        elif path.name == "metrics.csv":
            found[name] = metrics(path)
        elif path.suffix == ".ckpt":
            found[name] = "there"
    return found


def _tensors(path: Path) -> bytes:
    import torch

    state = torch.load(path, weights_only=True, map_location="cpu")
    return b"".join(v.numpy().tobytes() for v in state.values() if isinstance(v, torch.Tensor))


def metrics(path: Path) -> list[tuple[str, ...]]:
    """The rows of a metrics.csv, without the columns of clocks."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [tuple(f"{k}={v}" for k, v in row.items() if not any(c in k for c in ("second", "time"))) for row in rows]


def differing(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """In a few words what differs."""
    wrong = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    return f"other: {', '.join(sorted(wrong)[:3])}" if wrong else ""


def training(table: Table, kind: str, place: Path) -> None:
    """Every kill of one kind of run."""
    tiny = TINY_RUNS[kind]
    if not table.wanted(what := f"train, {kind} ({tiny.slug}): same weights after --resume"):
        return
    with table.row(what) as row:
        if tiny.begins_with:
            forked(lambda: train_tiny(tiny.begins_with, place / tiny.begins_with, place) and 0)
        tiny.source(place)
        seams = moments(lambda: train_tiny(kind, place / "whole", place) and 0, place / "seams")
        expected = learnt(place / "whole")

        def attack(moment: int) -> str:
            out = place / "cut"
            shutil.rmtree(out, ignore_errors=True)
            trial = killed(lambda: train_tiny(kind, out, place) and 0, moment)
            if trial.code != -signal.SIGKILL:
                return f"was not killed: {trial.fault or trial.code}"
            again = forked(lambda: train_tiny(kind, out, place) and 0)
            return again.fault or again.said or differing(expected, learnt(out))

        for moment in range(seams):
            row.ask(f"moment {moment} of {seams}", lambda moment=moment: attack(moment))
        shutil.rmtree(place / "whole")


# ---- every other command ---------------------------------------------------------------------------------------------
def written(folder: Path) -> dict[str, Any]:
    """Every file below a folder as what it says: tables and JSON without clocks, the others to the byte."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            found[name] = said(path)
        elif path.suffix == ".npz":
            found[name] = arrays(path)
        elif path.name == "metrics.csv":
            found[name] = metrics(path)
        elif path.suffix == ".ckpt" or path.name.startswith("events.") or path.suffix == ".yaml":
            found[name] = "there"  # holds clocks
        elif path.suffix in (".html", ".svg"):
            found[name] = len(path.read_bytes()) > 1000
        elif path.name == ".done":  # a line for each file, in the order in which they were made
            found[name] = sorted(set(path.read_text(errors="replace").splitlines()))
        else:
            found[name] = path.read_bytes()
    return found


def said(path: Path) -> Any:
    """What a JSON file says, without clocks; the bytes of one that is none."""
    try:
        return timeless(json.loads(path.read_text()))
    except ValueError:
        return path.read_bytes()


def arrays(path: Path) -> dict[str, bytes]:
    """What an archive of arrays holds."""
    import numpy as np

    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        return {name: file[name].tobytes() for name in file.files}


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in _CLOCK and "second" not in k}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def repeated(table: Table, what: str, place: Path, prepare: Callable[[Path], None], argv: list[str]) -> None:
    """Every kill of one command in a folder of its own, which must be the same in the end after the command again.

    Args:
        table: gets the row.
        what: its name.
        place: where to work.
        prepare: puts into the folder what the command needs.
        argv: the command, its paths relative to that folder.
    """
    from selftaught.cli import main

    if not table.wanted(what):
        return

    def fresh(name: str) -> Path:
        folder = place / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        prepare(folder)
        return folder

    def work(folder: Path) -> Callable[[], int]:
        def called() -> int:
            os.chdir(folder)
            return main(argv)

        return called

    whole = fresh("work")
    try:
        seams = moments(work(whole), place / "seams")
    except Refused as said:
        print(f"{what}: nothing to kill ({said})")
        return
    expected = written(whole)
    with table.row(what) as row:

        def attack(moment: int) -> str:
            folder = fresh("work")  # the same place: it is part of what some files say
            trial = killed(work(folder), moment)
            if trial.code != -signal.SIGKILL:
                return f"was not killed: {trial.fault or trial.code}"
            done = written(folder) == expected  # may then be refused, as what is there already
            again = command(*argv, place=folder)
            return again.fault or ("" if done else again.said) or differing(expected, written(folder))

        for moment in range(seams):
            row.ask(f"moment {moment} of {seams}", lambda moment=moment: attack(moment))


GRID = """
name: small
methods: [untrained, simclr]
data: ["digits?n=80"]
encoders: [cnn-small]
seeds: 1
options: {steps: 2, batch_size: 16, image_size: 16, projector: 16-8, augment: grey}
probe: knn
"""


def judging(kind: str) -> list[str]:
    """Options of ``evaluate`` for a tiny run: one protocol, which is quick, and what it is judged by."""
    protocols = {
        "encoder": "knn", "two stages, EMA, best weights": "knn", "classifier": "classify",
        "image and text": "text-retrieval", "points": "point-knn",
    }  # fmt: skip
    if kind in protocols:
        return ["--protocol", protocols[kind]]
    return ["--clean", tiny_input(kind) if kind == "restorer" else depths()] if kind in ("restorer", "depth") else []


def depths() -> str:
    """Depth maps of the frames that the tiny run of depth learns from."""
    import cv2
    import numpy as np

    frames = Path(tiny_input("depth"))
    for frame in sorted(frames.rglob("*.png")):
        path = frames.with_name("depths") / frame.relative_to(frames)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            height, width = cv2.imread(str(frame)).shape[:2]
            far = np.linspace(1500, 4000, height).astype(np.uint16)
            cv2.imwrite(str(path), np.ascontiguousarray(far[:, None].repeat(width, 1)))
    return str(frames.with_name("depths"))


def of_each_output() -> dict[str, str]:
    """Kind of output -> the first kind of tiny run that delivers it."""
    from selftaught import methods

    found: dict[str, str] = {}
    for kind, tiny in TINY_RUNS.items():
        found.setdefault(methods.get(tiny.slug).output, kind)
    return found


def others(table: Table, place: Path) -> None:
    """Apply and evaluate of every kind of output, export, report, degrade, curate and a grid."""

    def with_run(kind: str) -> Callable[[Path], None]:
        return lambda folder: shutil.copytree(tiny_run(kind), folder / "run") and None

    for kind, tiny in TINY_RUNS.items():
        data = tiny_input(kind)
        more = [part for k, v in tiny.more.items() for part in (f"--{k}", str(v))]
        for out in tiny.outs:
            repeated(table, f"apply, {kind} ({tiny.slug}), to {out}: same files", place, with_run(kind),
                     ["apply", "run", data, "--out", out, "--workers", "0", *more])  # fmt: skip
    for kind in (*of_each_output().values(), "two stages, EMA, best weights"):
        repeated(table, f"evaluate, {kind} ({TINY_RUNS[kind].slug}): same numbers", place, with_run(kind),
                 ["evaluate", "run", *judging(kind)])  # fmt: skip
    for form in ("timm", "safetensors", "onnx"):
        repeated(table, f"export to {form}: same files", place, with_run("encoder"),
                 ["export", "run", "--format", form, "--out", "exported"])  # fmt: skip
    repeated(table, "report: a whole page", place, with_run("encoder"), ["report", "run"])
    photos, walks = tiny_input("restorer"), tiny_input("depth")
    for recipe, given in (("blur?size=5&shortest=2", photos), ("text", photos), ("rolling-shutter?readout=2", walks)):
        repeated(table, f"degrade {recipe.partition('?')[0]}: same files", place, lambda folder: None,
                 ["degrade", recipe, given, "out"])  # fmt: skip
    repeated(table, "curate: same files", place, with_run("encoder"),
             ["curate", "digits?n=80", "--encoder", "run", "--keep", "20", "--out", "kept"])  # fmt: skip
    repeated(table, "benchmark, a grid of two cells: same table", place,
             lambda folder: (folder / "grid.yaml").write_text(GRID) and None,
             ["benchmark", "grid.yaml", "--out", "grid"])  # fmt: skip


def main() -> int:
    """Train and attack; the number of kills that were not survived."""
    table, place, options = start("kills", str(__doc__).splitlines()[0])
    for kind in TINY_RUNS:
        training(table, kind, place)
    others(table, place)
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
