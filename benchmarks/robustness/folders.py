"""Run folders with one file damaged: a line that names it, or the same result; never a traceback, never another result.

    python benchmarks/robustness/folders.py [--only WORDS] [--place FOLDER --minutes 14]

Every file of a run, one of each kind of output, gone, turned into a folder, or damaged in ten ways; then evaluate,
apply, export and resume, and of two kinds report. A command survives that ends with exit code 2 and a line, or with the
result that the whole run gives. One that notices neither a file's absence nor noise in it does not read that file, and
is not asked about its other damages. Runs that were killed half-way are resumed.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kills import judging, killed, moments, of_each_output, timeless, written
from trials import Table, Trial, command, load_all, name_of, start, tiny_input, tiny_run

from selftaught._words import plural
from tests.harness import DAMAGES, TINY_RUNS, damaged, train_tiny

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
    found = {
        "apply": Ask(
            ["apply", folder, given, "--out", out, "--workers", 0, *more], lambda: made(out), out
        ),
        "export": Ask(["export", folder, "--format", "safetensors", "--out", model], lambda: made(model), model),
        "resume": Ask(["train", "--resume", folder, "--quiet", "--workers", 0, "--no-report"], lambda: weights(folder)),
        "evaluate": Ask(
            ["evaluate", folder, *judging(kind)], lambda: numbers(folder / "evaluation.json", kind)
        ),
    }  # fmt: skip
    return found | ({"report": Ask(["report", folder], lambda: "a page")} if kind in REPORTED else {})


REPORTED = ("encoder", "restorer")
"""Whose page is asked for, too: it reads what the others read."""
CUT = ("encoder", "two stages, EMA, best weights", "GAN of two stages")
"""Runs that are damaged half-way, too, and then resumed."""


def weights(folder: Path) -> dict[str, Any]:
    """The weights that a run delivers."""
    from safetensors.numpy import load_file

    return {name: value.tobytes() for name, value in load_file(folder / "encoder.safetensors").items()}


def made(out: Path) -> Any:
    """What a command wrote."""
    if out.is_dir():
        return {name: value for name, value in written(out).items() if name not in ("work.json", ".done")}
    return out.exists() and out.read_bytes()


def numbers(path: Path, kind: str) -> Any:
    """What was measured now; what was measured before stays beside it."""
    found, (option, *asked) = timeless(json.loads(path.read_text())), judging(kind) or [""]
    return {name: found[name] for name in asked} if option == "--protocol" else found


def attacked(table: Table, what: str, whole: Path, place: Path, given: dict[str, Ask]) -> None:
    """Every damage of every file of a run.

    Args:
        table: gets the row.
        what: the kind of run, for the row's name.
        whole: its folder.
        place: where ``given`` finds the damaged one, as work/run.
        given: what is asked.
    """
    folder = place / "work" / "run"
    names = [str(p.relative_to(whole)) for p in sorted(whole.rglob("*")) if p.is_file()]
    what = f"{what}: {len(names)} files x {len(DAMAGES)} damages, {plural(len(given), 'command')}"
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
                raise RuntimeError(f"{what}, {which} of the whole run: {trial.err[-2000:]}")
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


def half(kind: str, place: Path) -> Path:
    """The folder of a run that was killed half-way."""
    tiny, runs = TINY_RUNS[kind], load_all()
    tiny.source(runs)
    seams = moments(lambda: train_tiny(kind, place / "uncut", runs) and 0, place / "seams")
    killed(lambda: train_tiny(kind, place / "half", runs) and 0, seams // 2)
    shutil.rmtree(place / "uncut")
    return place / "half"


def main() -> int:
    """Damage and ask."""
    table, place, options = start("folders", str(__doc__).splitlines()[0])
    folder = place / "work" / "run"
    for kind in of_each_output().values():
        whole = tiny_run("looked-at" if kind == "encoder" else kind)
        name = f"{kind} ({TINY_RUNS[kind].slug})"
        attacked(table, name, whole, place, asks(kind, folder, tiny_input(kind)))
    for kind in CUT:
        name = f"{kind} ({TINY_RUNS[kind].slug}), killed half-way"
        if options.only in name:
            given = {"resume": asks(kind, folder, "")["resume"]}
            attacked(table, name, half(kind, place / name_of(kind)), place, given)
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
