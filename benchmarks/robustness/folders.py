"""Run folders with one file damaged: a line that names it, or the same result; never a traceback, never another result.

    python benchmarks/robustness/folders.py [--only WORDS]

Every file of a run (an encoder, a restorer, image and text, depth, points, a changed classifier; of another kind with
--only), gone, turned into a folder, or damaged in ten ways; then evaluate, apply, export, report and resume. A command
survives that ends with exit code 2 and a line, or with the result that the whole run gives. One that notices neither a
file's absence nor noise in it does not read that file, and is not asked about its other damages.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kills import timeless, written
from trials import Trial, command, start, tiny_input, tiny_run

from tests.harness import DAMAGES, TINY_RUNS, damaged

KINDS = ("encoder", "restorer", "image and text", "depth", "points", "unlearning")
FIRST = ("gone", "noise")
"""Damages that tell whether a command reads a file at all."""


def results(kind: str, folder: Path, given: str) -> dict[str, tuple[Callable[[], Trial], Callable[[], Any]]]:
    """Command -> what runs it on a folder, and what it made."""
    tiny = TINY_RUNS[kind]
    out = folder.parent / tiny.outs[0]
    more = [part for k, v in tiny.more.items() for part in (f"--{k}", str(v))]
    judged = folder.parent / "evaluated"

    def cleared(*arguments: object) -> Trial:
        for path in (out, judged):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        for path in folder.parent.glob(f"{out.name}.*"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        return command(*arguments)

    found: dict[str, tuple[Callable[[], Trial], Callable[[], Any]]] = {
        "apply": (lambda: cleared("apply", folder, given, "--out", out, "--workers", 0, *more), lambda: made(out)),
        "export": (
            lambda: cleared("export", folder, "--out", judged),
            lambda: made(judged),
        ),
        "resume": (lambda: cleared("train", "--resume", folder, "--quiet", "--workers", 0), lambda: weights(folder)),
        "report": (lambda: cleared("report", folder), lambda: "a page"),
    }
    if kind in ("encoder", "classifier", "unlearning", "image and text", "points", "clip"):
        found["evaluate"] = (lambda: cleared("evaluate", folder), lambda: numbers(folder / "evaluation.json"))
    return found


def weights(folder: Path) -> dict[str, Any]:
    """The weights that a run delivers."""
    from safetensors.numpy import load_file

    return {name: value.tobytes() for name, value in load_file(folder / "encoder.safetensors").items()}


def made(out: Path) -> Any:
    """What apply wrote."""
    if out.is_dir():
        return {name: value for name, value in written(out).items() if name not in ("work.json", ".done")}
    return out.exists() and out.read_bytes()


def numbers(path: Path) -> Any:
    """What was measured."""
    return timeless(json.loads(path.read_text()))


def main() -> int:
    """Damage and ask."""
    table, place, options = start("folders", str(__doc__).splitlines()[0])
    for kind in TINY_RUNS:
        if kind not in KINDS if not options.only else options.only not in kind:
            continue
        whole, folder = place / "whole" / "run", place / "work" / "run"
        shutil.rmtree(place / "whole", ignore_errors=True)
        shutil.rmtree(place / "work", ignore_errors=True)
        shutil.copytree(tiny_run(kind), whole)
        source = tiny_input(kind)
        shutil.copytree(whole, folder)
        asks = results(kind, folder, source)
        expected: dict[str, Any] = {}
        for what, (ask, found) in asks.items():
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
            if (trial := ask()).code != 0:
                raise RuntimeError(f"{kind}, {what} of the whole run: {trial.err[-2000:]}")
            expected[what] = found()
        names = [str(p.relative_to(whole)) for p in sorted(whole.rglob("*")) if p.is_file()]
        with table.row(
            f"{kind} ({TINY_RUNS[kind].slug}): {len(names)} files x {len(DAMAGES)} damages, {len(asks)} commands"
        ) as row:
            for name in names:
                for what, (ask, found) in asks.items():
                    unread = 0
                    for damage in sorted(DAMAGES, key=lambda one: one not in FIRST):
                        if unread == len(FIRST):
                            break  # neither its absence nor noise in it is noticed: this command does not read it
                        damaged(whole, folder, name, damage)
                        trial = ask()
                        fault = trial.fault
                        if not fault and trial.code == 0 and found() != expected[what]:
                            fault = "another result without a word"
                        unread += damage in FIRST and not fault and trial.code == 0
                        row.add(f"{name} {damage}, {what}", fault)
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
