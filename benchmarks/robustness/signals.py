"""SIGTERM and Ctrl-C to the whole group, with loader processes: one line, 143 or 130, no child left, how to go on.

    python benchmarks/robustness/signals.py [--only WORDS] [--place FOLDER --minutes 14]

As GNU timeout, systemd, scancel and a terminal send them: every process of the group gets the signal. Each command is
signalled at several moments; one that had ended by then is not counted. A training that was stopped is then finished.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from trials import Row, Trial, command, forked, start, tiny_run

MOMENTS = (0.02, 0.1, 0.3, 0.8, 1.6, 3.0)
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
GRID = """
name: small
methods: [simclr]
data: [FOLDER]
encoders: [cnn-small]
seeds: 2
options: {steps: 4000, batch_size: 16, image_size: 16, projector: 16-8, augment: grey}
probe: knn
"""


def group_of(leader: int) -> list[int]:
    """The processes of a group that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if int(group) == leader and state != "Z":
                found.append(int(path.parent.name))
    return found


def signalled(argv: list[str], place: Path, signum: signal.Signals, after: float, twice: bool = False) -> Trial | None:
    """Run a command, send its group a signal after some seconds; None where it had ended by then."""
    note = place / "leader"
    note.unlink(missing_ok=True)
    helper = os.fork()
    if helper == 0:  # sends the signals, from outside the group
        os.setsid()
        end = time.monotonic() + 60
        while not note.exists() and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(after)
        with contextlib.suppress(OSError, ValueError):
            leader = int(note.read_text())
            os.killpg(leader, signum)
            (place / "sent").write_text("")
            if twice:
                time.sleep(0.3)
                os.killpg(leader, signum)
        os._exit(0)
    (place / "sent").unlink(missing_ok=True)

    def work() -> int:
        from selftaught.cli import main

        (place / "leader.part").write_text(str(os.getpid()))
        (place / "leader.part").rename(note)
        sys.argv = ["selftaught", *argv]
        return main()  # as a program has it, which ends after it

    trial = forked(work, seconds=90, place=place)
    os.waitpid(helper, 0)
    return trial if (place / "sent").exists() and trial.code != 0 else None


def judged(trial: Trial, signum: signal.Signals, leader: int) -> str:
    """What is wrong with how it ended."""
    if trial.code == -signum:
        return ""  # before Python was told what to do with it: nothing had begun
    if trial.code is None:
        return "took too long"
    if "Traceback" in trial.err + trial.out:
        return f"traceback: {trial.err.strip().splitlines()[-1][:120]}"
    if trial.code != CODES[signum]:
        return f"exit {trial.code}: {trial.err[-120:]}"
    if trial.err.count("selftaught: stopped") != 1:
        return f"no word: {trial.err[-120:]}"
    if not any(way in trial.said for way in ("go on with", "goes on", "again")):
        return f"not how to go on: {trial.said}"
    end = time.monotonic() + 5
    while left := group_of(leader):
        if time.monotonic() > end:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            return f"{len(left)} processes left"
        time.sleep(0.05)
    return ""


def pictures(folder: Path, count: int) -> Path:
    """A folder of grey pictures large enough to keep a command busy."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:04d}.png"), rng.integers(0, 256, (160, 160), dtype=np.uint8))
    return folder


def attacked(row: Row, argv: list[str], place: Path, fresh: Callable[[], None]) -> None:
    """Both signals at every moment, and Ctrl-C twice."""
    for signum in CODES:
        for after in MOMENTS:
            for twice in (False, True) if signum == signal.SIGINT and after in MOMENTS[2:4] else (False,):
                name = f"{signum.name} after {after} s" + (", twice" if twice else "")
                if row.knows(name):
                    row.ask(name, str)
                    continue
                row.journal.pause()
                fresh()
                trial = signalled(argv, place, signum, after, twice)
                if trial is not None:
                    leader = int((place / "leader").read_text())
                    row.add(name, judged(trial, signum, leader))
    if argv[0] == "train":
        row.ask("finished afterwards", lambda: finished(argv, place, fresh))


def finished(argv: list[str], place: Path, fresh: Callable[[], None]) -> str:
    """What is wrong with how a training that was stopped is finished."""
    fresh()
    if signalled(argv, place, signal.SIGTERM, 4.0) is None:
        return "was not stopped"
    trial = command("train", "--resume", "out", "--finish-now", "--quiet", "--workers", "0", place=place)
    return trial.fault or trial.said or ("" if (place / "out" / "encoder.safetensors").exists() else "no weights")


def main() -> int:
    """Start, signal, look."""
    table, place, options = start("signals", str(__doc__).splitlines()[0])
    for kind in ("encoder", "restorer", "image and text"):
        shutil.copytree(tiny_run(kind), place / kind.replace(" ", "-"))
    few, many = pictures(place / "few", 200), pictures(place / "many", 6000)
    (place / "grid.yaml").write_text(GRID.replace("FOLDER", str(few)))
    tiny = ["--encoder", "cnn-small", "--image-size", "16", "--projector", "16-8", "--augment", "grey"]
    tiny += ["--steps", "20000", "--batch-size", "16", "--workers", "2", "--quiet"]
    commands: dict[str, list[str]] = {
        "train, two loader processes": ["train", "simclr", "--data", str(few), "--out", "out", *tiny],
        "train, no loader process": ["train", "simclr", "--data", str(few), "--out", "out", *tiny, "--workers", "0"],
        "apply to a table": ["apply", "encoder", str(many), "--out", "out.npy", "--workers", "2"],
        "apply to a folder": ["apply", "restorer", str(many), "--out", "out", "--workers", "2"],
        "evaluate": ["evaluate", "image-and-text", "--data", "scenes?train=4000&test=2000&captions=2&side=20"],
        "benchmark, a grid": ["benchmark", "grid.yaml", "--out", "out"],
        "data check": ["data", "check", str(many)],
        "degrade": ["degrade", "blur", str(many), "out"],
        "curate": ["curate", str(many), "--keep", "0.5", "--out", "out"],
        "search": ["search", "image-and-text", "scenes?train=6000&test=2&side=20", "red"],
        "benchmark claims": ["benchmark", "claims", "--method", "simclr", "--out", "out"],
        "doctor": ["doctor"],
        "demo": ["demo", "--out", "out"],
    }

    def fresh() -> None:
        for path in [*place.glob("out*"), *(place / "image-and-text").glob("index*")]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()

    for what, argv in commands.items():
        if table.wanted(name := f"{what}: no traceback, 143 or 130, no process left, how to go on"):
            with table.row(name) as row:
                attacked(row, argv, place, fresh)
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
