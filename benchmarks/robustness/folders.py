"""Run folders with one file damaged: a line that names it, or the same result; never a traceback, never another result.

    python benchmarks/robustness/folders.py [--only WORDS] [--place FOLDER --minutes 14]

Every file of a run, one of each kind of output, gone, turned into a folder, or damaged in ten ways; then evaluate,
apply, export, report and resume. A command survives that ends with exit code 2 and a line, or with the result that the
whole run gives. One that notices neither a file's absence nor noise in it does not read that file, and is not asked
about its other damages.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kills import of_each_output, timeless, written
from trials import Table, Trial, command, start, tiny_input, tiny_run

from tests.harness import DAMAGES, TINY_RUNS, damaged

FIRST = ("gone", "noise")
"""Damages that tell whether a command reads a file at all."""


@dataclass(frozen=True)
class Ask:
    """A command on a run's folder.

    Attributes:
        argv: of the command.
        made: what it made.
        out: files that it writes beside the run, taken away before.
    """

    argv: list[object]
    made: Callable[[], Any]
    out: Path | None = None

    def run(self) -> Trial:
        """Run it where nothing lies yet."""
        if self.out is not None:
            for path in (self.out, *self.out.parent.glob(f"{self.out.name}.*")):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return command(*self.argv)


def asks(kind: str, folder: Path, given: str) -> dict[str, Ask]:
    """What is asked of a run of that kind."""
    tiny = TINY_RUNS[kind]
    out, model = folder.parent / tiny.outs[0], folder.parent / "exported"
    more = [part for k, v in tiny.more.items() for part in (f"--{k}", str(v))]
    return {
        "apply": Ask(
            ["apply", folder, given, "--out", out, "--workers", 0, *more], lambda: made(out), out
        ),
        "export": Ask(["export", folder, "--format", "safetensors", "--out", model], lambda: made(model), model),
        "resume": Ask(["train", "--resume", folder, "--quiet", "--workers", 0], lambda: weights(folder)),
        "report": Ask(["report", folder], lambda: "a page"),
        "evaluate": Ask(["evaluate", folder, *EVALUATED.get(kind, ())], lambda: numbers(folder / "evaluation.json")),
    }  # fmt: skip


EVALUATED = {"encoder": ("--protocol", "knn")}
"""What makes evaluating quick; the files that are read are the same."""


def weights(folder: Path) -> dict[str, Any]:
    """The weights that a run delivers."""
    from safetensors.numpy import load_file

    return {name: value.tobytes() for name, value in load_file(folder / "encoder.safetensors").items()}


def made(out: Path) -> Any:
    """What a command wrote."""
    if out.is_dir():
        return {name: value for name, value in written(out).items() if name not in ("work.json", ".done")}
    return out.exists() and out.read_bytes()


def numbers(path: Path) -> Any:
    """What was measured."""
    return timeless(json.loads(path.read_text()))


def attacked(table: Table, kind: str, place: Path) -> None:
    """Every damage of every file of one kind of run."""
    whole, folder = tiny_run("looked-at" if kind == "encoder" else kind), place / "work" / "run"
    names = [str(p.relative_to(whole)) for p in sorted(whole.rglob("*")) if p.is_file()]
    given = asks(kind, folder, tiny_input(kind))
    what = f"{kind} ({TINY_RUNS[kind].slug}): {len(names)} files x {len(DAMAGES)} damages, {len(given)} commands"
    if not table.wanted(what):
        return
    expected: dict[str, Any] = {}

    def attack(name: str, damage: str, which: str) -> str:
        ask = given[which]
        if which not in expected:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder)
            trial = ask.run()
            expected[which] = ask.made() if trial.code == 0 else trial.said
            if trial.fault:
                raise RuntimeError(f"{kind}, {which} of the whole run: {trial.err[-2000:]}")
        damaged(whole, folder, name, damage)
        trial = ask.run()
        if trial.fault:
            return trial.fault
        if trial.code == 0 and ask.made() != expected[which]:
            return "another result without a word"
        if damage in FIRST and (trial.code == 0 or trial.said == expected[which]):
            row.note(f"{name} {damage}, {which}: not noticed")
        return ""

    with table.row(what) as row:
        for name in names:
            for which in given:
                for damage in sorted(DAMAGES, key=lambda one: one not in FIRST):
                    if all(row.knows(f"{name} {first}, {which}: not noticed") for first in FIRST):
                        break
                    row.ask(f"{name} {damage}, {which}", lambda: attack(name, damage, which))  # noqa: B023


def main() -> int:
    """Damage and ask."""
    table, place, options = start("folders", str(__doc__).splitlines()[0])
    for kind in of_each_output().values():
        attacked(table, kind, place)
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
