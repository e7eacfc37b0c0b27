"""Full and read-only disks: one line, exit code 2, nothing half-written, and the same command goes on with room.

    python benchmarks/robustness/disk.py [--only WORDS]      (as root: it mounts a small tmpfs)

Every command writes to a disk of its own that is full but for 0, 12 or 150 KiB, or mounted read-only. It survives that
says in a line what can't be written, leaves no part behind, and does its work when the same command (for a training
that had begun: ``--resume``) is given again on a disk with room.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from kills import GRID, judging
from trials import Row, Table, Trial, command, start, tiny_input, tiny_run

from tests.harness import TINY_RUNS

ROOM = 96 << 20
FREE = (0, 12 << 10, 150 << 10)
TRAIN = {
    "encoder": ["--encoder", "cnn-small", "--image-size", "16", "--projector", "16-8", "--augment", "grey",
                "--batch-size", "16", "--steps", "3", "--checkpoint-steps", "1"],
    "two stages, EMA, best weights": ["--scales", "4", "--max-scale", "16", "--batch-size", "16", "--epochs", "1",
                                      "--ema", "0.9", "--no-report"],
    "restorer": ["--patch", "24", "--width", "16", "--modules", "1", "--steps", "2", "--batch-size", "4"],
}  # fmt: skip


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of its own, unmounted at the end."""
    disk = place / "disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, free: int) -> None:
    """Leave so many bytes."""
    with (disk / "filler").open("wb") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, max(1, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - free))


def attacked(row: Row, place: Path, which: str, argv: list[str], needs: Path | None) -> None:
    """One command on full disks and on a read-only one; its outputs are paths on the disk, its run a copy on it."""
    for how in (*FREE, "read-only"):
        shown = how if how == "read-only" else f"{int(how) >> 10} KiB free"
        row.ask(f"{which}, {shown}", lambda how=how: met(place, how, argv, needs))


def met(place: Path, how: int | str, argv: list[str], needs: Path | None) -> str:
    """What is wrong with how a command met a disk, and with going on when there is room."""
    with small_disk(place) as disk:
        if needs is not None:
            shutil.copytree(needs, disk / "run")
        (disk / "grid.yaml").write_text(GRID)
        if how == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        else:
            fill(disk, int(how))
        trial = command(*argv, place=disk)
        if how == "read-only":
            subprocess.run(["mount", "-o", f"remount,rw,size={ROOM}", str(disk)], check=True)
        parts = [
            str(p.relative_to(disk)) for p in disk.rglob("*") if p.name.endswith(".part") or p.name.startswith(".part")
        ]
        if fault := judged(trial) or (f"left behind: {parts[0]}" if parts and trial.code != 0 else ""):
            return fault
        (disk / "filler").unlink(missing_ok=True)
        if trial.code == 0:
            return ""
        again = argv
        if argv[0] == "train" and (disk / "out" / "config.yaml").exists():
            again = ["train", "--resume", "out", "--workers", "0", "--quiet"]
        second = command(*again, place=disk)
        return f"with room: {second.fault or second.said}" if second.code != 0 else ""


def judged(trial: Trial) -> str:
    """What is wrong with how a full disk was met."""
    if trial.fault or trial.code == 0:
        return trial.fault
    lines = [line for line in trial.err.splitlines() if line.strip() and "filled up" not in line]
    said = [line for line in lines if line.startswith("selftaught:")]
    return "" if len(said) == 1 else f"{len(said)} lines: {trial.err[-200:]}"


def commands() -> dict[str, tuple[list[str], Path | None]]:
    """Command -> its arguments, and the run that it needs."""
    found: dict[str, tuple[list[str], Path | None]] = {}
    for kind, options in TRAIN.items():
        tiny = TINY_RUNS[kind]
        found[f"train, {kind}"] = (
            ["train", tiny.slug, "--data", tiny_input(kind), "--out", "out", "--workers", "0", "--quiet", *options],
            None,
        )
    for kind, tiny in TINY_RUNS.items():
        more = [part for k, v in tiny.more.items() for part in (f"--{k}", str(v))]
        for out in tiny.outs:
            found[f"apply, {kind}, to {out}"] = (
                ["apply", "run", tiny_input(kind), "--out", out, "--workers", "0", *more], tiny_run(kind),
            )  # fmt: skip
    found["apply, embeddings, to .csv"] = (
        ["apply", "run", "digits?n=60", "--out", "e.csv", "--workers", "0"], tiny_run("encoder"),
    )  # fmt: skip
    for kind in ("encoder", "classifier", "image and text"):
        found[f"evaluate, {kind}"] = (["evaluate", "run", *judging(kind)], tiny_run(kind))
    for form in ("timm", "safetensors", "onnx"):
        found[f"export to {form}"] = (
            ["export", "run", "--format", form, "--out", "exported"],
            tiny_run("encoder"),
        )
    found["report"] = (["report", "run"], tiny_run("encoder"))
    found["train --resume of a finished run"] = (["train", "--resume", "run", "--quiet"], tiny_run("encoder"))
    found["search"] = (["search", "run", "scenes?train=4&test=2", "red"], tiny_run("image and text"))
    grey, walks = tiny_input("restorer"), tiny_input("depth")
    found["degrade blur"] = (["degrade", "blur?size=5&shortest=2", grey, "out"], None)
    found["degrade rolling-shutter"] = (["degrade", "rolling-shutter?readout=2", walks, "out"], None)
    found["curate"] = (["curate", "digits?n=60", "--keep", "0.5", "--out", "out"], None)
    found["benchmark, a grid"] = (["benchmark", "grid.yaml", "--out", "grid"], None)
    return found


def main() -> int:
    """Fill and write."""
    table: Table
    table, place, options = start("disk", str(__doc__).splitlines()[0])
    rows: dict[str, list[str]] = {}
    found = commands()
    for which in found:
        rows.setdefault(which.partition(",")[0].split(" ")[0], []).append(which)
    for name, several in rows.items():
        if table.wanted(what := f"{name}: full but for 0, 12, 150 KiB, and read-only"):
            with table.row(what) as row:
                for which in several:
                    attacked(row, place, which, *found[which])
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
