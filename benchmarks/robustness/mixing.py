"""Results of several works in one place, and tables that are read back: refused in a line, never mixed.

    python benchmarks/robustness/mixing.py [--only WORDS] [--place FOLDER --minutes 14]

Where ``apply`` was killed half-way or had finished, another run of the same method, other options or other data are
given the same place; and what the killed one had noted and made is damaged, and the same command given again. It must
be refused in a line, or end in the files of an uncut command. Corrected labels and curated lists are damaged and read
back, and given to other data.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kills import differing, killed, moments, of_each_output, written
from trials import Table, Trial, command, forked, load_all, name_of, start, tiny_input, tiny_run

from tests.harness import DAMAGES, TINY_RUNS, harmed, train_tiny

OTHERS: dict[str, list[str]] = {"instruction": ["--instruction", "make it blue"], "into": ["--into", "video"]}
"""Option of ``apply`` that a tiny run is applied with -> the same with another value."""


def sibling(kind: str) -> Path:
    """A run as that tiny one, of another seed."""
    place = load_all()
    out = place / "siblings" / name_of(kind)
    if not (out / "state.json").exists():
        trial = forked(lambda: train_tiny(kind, out, place, seed=1) and 0)
        if trial.code:
            raise RuntimeError(f"{kind} of another seed: {trial.err[-2000:]}")
    return out


def cleaned(found: dict[str, Any]) -> dict[str, Any]:
    """Without what only says how far a work is, and the runs."""
    return {name: v for name, v in found.items() if not name.endswith(("work.json", ".done")) and "run/" not in name}


def placed(table: Table, kind: str, place: Path) -> None:
    """One kind of output: works that meet, and bookkeeping that is damaged."""
    tiny, out, folder = TINY_RUNS[kind], TINY_RUNS[kind].outs[0], place / "work"
    if not table.wanted(what := f"apply, {kind} ({tiny.slug}): other works in one place, and what is noted damaged"):
        return
    more = [part for k, v in tiny.more.items() for part in (f"--{k}", str(v))]
    argv = ["apply", "run", tiny_input(kind), "--out", out, "--workers", "0"]
    other = next((OTHERS[name] for name in tiny.more if name in OTHERS), None)

    def fresh() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copytree(tiny_run(kind), folder / "run")
        shutil.copytree(sibling(kind), folder / "other-run")

    def work() -> int:
        from selftaught.cli import main

        os.chdir(folder)
        return main([*argv, *more])

    def again() -> str:
        trial = command(*argv, *more, place=folder)
        return trial.fault or (differing(expected, cleaned(written(folder))) if trial.code == 0 else "")

    def meets(given: list[str]) -> str:
        """Another work in the place of this one: refused, and this one goes on."""
        trial = command(*given, place=folder)
        if trial.fault or trial.code == 0:
            return trial.fault or "accepted"
        trial = command(*argv, *more, place=folder)
        return trial.fault or trial.said or differing(expected, cleaned(written(folder)))

    with table.row(what) as row:
        fresh()
        seams = moments(work, place / "seams")
        expected = cleaned(written(folder))
        half = seams // 2 // 2 * 2
        for state, moment in (("half-way", half), ("finished", None)):

            def begun(moment: int | None = moment) -> None:
                fresh()
                if moment is not None and killed(work, moment).code != -signal.SIGKILL:
                    raise RuntimeError(f"{what}: was not killed")
                if moment is None and work_trial().code:
                    raise RuntimeError(f"{what}: failed")

            def work_trial() -> Trial:
                return forked(work)

            given = {"another run": ["apply", "other-run", *argv[2:], *more]}
            if other is not None:
                given["other options"] = [*argv, *other]
            for shown, theirs in given.items():

                def attack(theirs: list[str] = theirs, begun: Callable[[], None] = begun) -> str:
                    begun()
                    return meets(theirs)

                row.ask(f"{state}, {shown}", attack)
        fresh()
        killed(work, half)
        whole = place / "half"
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(folder, whole)
        runs = (whole / "run", whole / "other-run")
        files = [p for p in sorted(whole.rglob("*")) if p.is_file() and not any(run in p.parents for run in runs)]
        noted = [p for p in files if p.suffix in (".json", ".done", ".csv", ".npz", ".part") or p.name.startswith(".")]
        for path in noted:
            for way in DAMAGES:

                def spoil(path: Path = path, way: str = way) -> str:
                    shutil.rmtree(folder)
                    shutil.copytree(whole, folder)
                    harmed(folder / path.relative_to(whole), way)
                    return again()

                row.ask(f"{path.relative_to(whole)} {way}", spoil)


def read_back(table: Table, place: Path) -> None:
    """Tables of corrected labels and lists of curated samples, damaged, and of other data."""
    from selftaught._reading import name_lines
    from selftaught.data import open_source

    names = open_source("digits?n=60", split="train").names
    texts = {
        "corrections": "rank,name,label,corrected\n"
        + "".join(f"{i},{name},x,{i % 10 if i % 2 else '-'}\n" for i, name in enumerate(names[:20])),
        "only": name_lines(names[:20]),
    }
    for option, text in texts.items():
        path = place / f"{option}.txt"

        def labels(data: str = "digits?n=60", option: str = option, path: Path = path) -> int:
            from selftaught.errors import UserError

            try:
                source = open_source(f"{data}{'&' if '?' in data else '?'}{option}={path}", split="train")
            except UserError as error:
                print(f"selftaught: {error}", file=sys.stderr)
                return 2
            print(list(zip(source.names, source.labels.tolist(), strict=True)))
            return 0

        if table.wanted(what := f"{option}=: a table that is read back, damaged, and of other data"):
            with table.row(what) as row:
                path.write_text(text)
                expected = forked(labels).out
                for way in DAMAGES:
                    path.unlink(missing_ok=True) if not path.is_dir() else shutil.rmtree(path)
                    path.write_text(text)
                    harmed(path, way)
                    trial = forked(labels)
                    other = trial.code == 0 and trial.out != expected
                    row.add(way, trial.fault or ("another result without a word" if other else ""))
                path.unlink()
                path.write_text(text.replace(names[0], "nobody"))
                row.add("a name that is none", "" if forked(labels).code == 2 else "accepted")
                path.write_text(text)
                trial = forked(lambda: labels("basic-motions"))
                row.add("other data", trial.fault or ("accepted" if trial.code == 0 else ""))


def main() -> int:
    """Mix and damage."""
    table, place, options = start("mixing", str(__doc__).splitlines()[0])
    for kind in of_each_output().values():
        placed(table, kind, place)
    read_back(table, place)
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
