"""What the counts of robustness share: commands in a process of their own, what counts as survived, the stored JSON.

A trial is a fork of this process, in which everything heavy is loaded already: it takes what the command takes, and is
killed as a command is (SIGKILL, a full disk, signals to its group). The parent itself never trains.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
os.environ.pop("SELFTAUGHT_RUN_FOLDER", None)
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]
sys.path.append(str(ROOT / "benchmarks" / "speed"))
_SHOWN = 12
"""Failures of a row that are printed and stored."""
_WHOLE = "all of "
"""Begins the line of a journal that says that a row is whole."""


@dataclass(frozen=True)
class Trial:
    """How a command ended.

    Attributes:
        code: its exit code; -9 where it was killed, None where it took too long.
        out: what it printed.
        err: what it printed as errors.
    """

    code: int | None
    out: str
    err: str

    @property
    def fault(self) -> str:
        """What must never be, in a few words; "" where the command did, refused in a line, or was killed."""
        if self.code is None:
            return "took too long"
        if "Traceback" in self.err + self.out:
            return f"traceback: {self.err.strip().splitlines()[-1][:160]}"
        if self.code == 2 and not self.said:
            return "exit 2 without a word"
        if self.code not in (0, 2, -signal.SIGKILL):
            return f"exit {self.code}: {self.said[:120]}"
        return ""

    @property
    def said(self) -> str:
        """The line that says why there is no result."""
        lines = [line for line in self.err.splitlines() if line.startswith(("selftaught:", "usage:"))]
        return lines[-1] if lines else ""


def forked(work: Callable[[], Any], seconds: float = 300, place: Path | None = None) -> Trial:
    """Do something in a process of its own, the head of its own group.

    Args:
        work: returns the exit code, None for 0.
        seconds: after which the whole group is killed.
        place: its working folder; None for this process's.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setsid()
                _die_with_parent()
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = (os.fdopen(os.dup(fd), "w", errors="surrogateescape") for fd in (1, 2))
                os.chdir(place or ".")
                code = int(work() or 0)
            except SystemExit as error:
                code = int(error.code or 0) if isinstance(error.code, int | None) else 2
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(OSError, ValueError):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        code = _awaited(pid, seconds)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Trial(code, *texts)


def _die_with_parent() -> None:
    """Let this process be killed when the one that forked it ends (on Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _awaited(pid: int, seconds: float) -> int | None:
    end, pause = time.monotonic() + seconds, 0.002
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def command(*arguments: object, seconds: float = 300, place: Path | None = None) -> Trial:
    """Run one command of the product in a process of its own."""

    def work() -> int:
        from selftaught.cli import main

        return main([str(a) for a in arguments])

    return forked(work, seconds, place)


class Journal:
    """What a count has survived so far, in a file of its place: with the same place the next call leaves that out.

    Args:
        path: the file; None keeps nothing.
        minutes: after which the process ends, between two attacks.
    """

    def __init__(self, path: Path | None, minutes: float = float("inf")) -> None:
        self.path, self.end = path, time.monotonic() + 60 * minutes
        self.known: dict[str, set[str]] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                what, which = json.loads(line)
                self.known.setdefault(what, set()).add(which)

    def note(self, what: str, which: str) -> None:
        """One more was survived."""
        self.known.setdefault(what, set()).add(which)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([what, which]) + "\n")

    def pause(self) -> None:
        """End the process where its time is over."""
        if time.monotonic() > self.end:
            print("the time is over; the same command goes on", flush=True)
            sys.exit(75)


@dataclass
class Row:
    """A count: what was attacked, how often, how often it survived, and what went wrong; on which commit."""

    what: str
    journal: Journal = field(default_factory=lambda: Journal(None))
    tried: int = 0
    survived: int = 0
    failures: list[str] = field(default_factory=list)
    commit: str = field(default_factory=lambda: commit())

    def ask(self, which: str, attack: Callable[[], str]) -> str:
        """Attack and count, unless the journal has it survived; ``attack`` returns "" for that, else the fault."""
        if self.knows(which):
            self.tried, self.survived = self.tried + 1, self.survived + 1
            return ""
        self.journal.pause()
        fault = attack()
        self.add(which, fault)
        return fault

    def knows(self, which: str) -> bool:
        """Whether the journal has it."""
        return which in self.journal.known.get(self.what, ())

    def note(self, which: str) -> None:
        """Put into the journal what the next call shall know."""
        self.journal.note(self.what, which)

    def add(self, which: str, fault: str) -> None:
        """Count one attack; ``fault`` is "" where it was survived."""
        self.tried += 1
        self.survived += not fault
        if fault:
            self.failures.append(f"{which}: {fault}")
            print(f"    {self.what} | {which}: {fault}", flush=True)
        else:
            self.note(which)


class Table:
    """The rows of one kind of attack, printed as they come and stored beside the script.

    Args:
        name: of the JSON.
        about: what is attacked, a line.
        only: rows whose name holds this are wanted.
        journal: of what was survived before.
    """

    def __init__(self, name: str, about: str, only: str = "", journal: Journal | None = None) -> None:
        self.name, self.about, self.only, self.began = name, about, only, time.monotonic()
        self.rows: list[Row] = []
        self.journal = journal or Journal(None)

    def wanted(self, what: str) -> bool:
        """Whether a row is to be counted; one that the journal has whole is taken from there."""
        if not any(words in what for words in self.only.split("|")):
            return False
        whole = [which for which in self.journal.known.get(what, ()) if which.startswith(_WHOLE)]
        if whole:
            count, _, on = whole[0].removeprefix(_WHOLE).partition(" on ")
            self.rows.append(Row(what, self.journal, int(count), int(count), commit=on))
        return not whole

    @contextlib.contextmanager
    def row(self, what: str) -> Iterator[Row]:
        """A row; its numbers are printed and stored when it is done."""
        one = Row(what, self.journal)
        self.rows.append(one)
        yield one
        print(f"{what:72s} tried {one.tried:4d}  survived {one.survived:4d}", flush=True)
        if one.tried == one.survived:
            self.journal.note(what, f"{_WHOLE}{one.tried} on {one.commit}")
        self._write(part=True)

    def store(self, part: bool = False) -> int:
        """Write NAME.json, and say so; returns how many attacks were not survived.

        Args:
            part: rows of another name that are stored already stay.
        """
        seconds = self._write(part)
        lost = sum(row.tried - row.survived for row in self.rows)
        print(f"{self.name}: {lost} of these not survived, {seconds} s; written to {self.name}.json")
        return lost

    def _write(self, part: bool) -> int:
        """Write NAME.json; returns the seconds so far.

        Args:
            part: rows of another name that are stored already stay.
        """
        from common import machine

        path, today = HERE / f"{self.name}.json", datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        rows: list[dict[str, Any]] = [
            {"what": r.what, "tried": r.tried, "survived": r.survived, "date": today, "commit": r.commit}
            | ({"failures": [f[:300] for f in r.failures[:_SHOWN]]} if r.failures else {})
            for r in self.rows
        ]
        seconds = round(time.monotonic() - self.began)
        if part and path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))
            new = {row["what"]: row for row in rows}
            rows = [new.pop(row["what"], row) for row in stored["rows"]] + list(new.values())
        found = {"about": self.about, "date": today, "seconds": seconds, "machine": machine(), "rows": rows}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return seconds


def commit() -> str:
    """The commit that is counted; empty where that can't be told."""
    told = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return told.stdout.strip()


_LOADED: list[Path] = []
"""Where the tiny runs lie, once everything is loaded."""


def name_of(kind: str) -> str:
    """What the folder of a kind of tiny run is called."""
    return kind.replace(",", "").replace(" ", "-")


def tiny_run(kind: str) -> Path:
    """The folder of a tiny run of that kind, which is only read: attack a copy."""
    return load_all() / name_of(kind)


def tiny_input(kind: str) -> str:
    """What the tiny run of that kind is applied to."""
    from tests.harness import TINY_RUNS

    return TINY_RUNS[kind].input(load_all())


def load_all(where: Path | None = None) -> Path:
    """Load what every command needs, once, so that a trial does not: what tiny runs loaded in a process of their own.

    Nothing is computed here: a process that has taken a gradient can't be forked to take others.

    Args:
        where: folder that keeps them; what is there already is not made again.

    Returns:
        the folder of the tiny runs; without ``where`` gone at the end of the process that first called this.
    """
    import importlib

    import torch

    from tests.harness import TINY_RUNS, train_tiny

    if _LOADED:
        return _LOADED[0]
    torch.set_num_threads(1)
    place = _fleeting("loaded", None) if where is None else where / "loaded"
    place.mkdir(parents=True, exist_ok=True)

    def learn() -> None:
        for kind, tiny in TINY_RUNS.items():
            run = train_tiny(kind, place / name_of(kind), place)
            if kind == "encoder":
                copied = shutil.copytree(run.path, place / "looked-at")
                looked = type(run)(copied)
                looked.evaluate()
                looked.apply(tiny.source(place), place / f"applied-{tiny.outs[0]}", workers=0)
                looked.export("safetensors", place / "exported")
                looked.report()
        (place / "modules").write_text("\n".join(sys.modules))

    if not (place / "modules").is_file() and (trial := forked(learn, seconds=900)).code:
        raise RuntimeError(f"tiny runs don't train: {trial.err[-3000:]}")
    for name in (place / "modules").read_text().splitlines():
        if name not in sys.modules and not name.startswith(("__", "tests.", "torch.ops", "torch.classes")):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    from selftaught.catalog import cards

    cards.all_cards(), cards.applied_with()  # what every command would read in its own source
    gc.collect()
    gc.freeze()  # a fork that looked through all of this for rubbish would copy it
    _LOADED.append(place)
    return place


def _fleeting(name: str, where: str | None) -> Path:
    """An empty folder that is gone at the end of this process."""
    import atexit

    place, owner = Path(tempfile.mkdtemp(prefix=f"robustness-{name}-", dir=where)), os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(place, ignore_errors=True))
    return place


def start(name: str, about: str, argv: Sequence[str] | None = None) -> tuple[Table, Path, argparse.Namespace]:
    """The table to fill, and an empty folder to work in that is gone at the end of the process."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--only", default="", help="rows whose name holds this, or one of A|B; others stay as they are stored"
    )
    parser.add_argument("--place", type=Path, help="folder that keeps tiny runs and what was survived so far: with it "
                        "the same command goes on; a temporary one otherwise")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after so many, to go on later")
    options = parser.parse_args(argv)
    place = _fleeting(name, None)
    journal = Journal(options.place and options.place / f"{name}.jsonl", options.minutes)
    load_all(options.place)
    return Table(name, about, options.only, journal), place, options
