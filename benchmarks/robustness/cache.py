"""The packed cache: used twice, killed, damaged, its source changed; training must read the source's own pixels.

    python benchmarks/robustness/cache.py

A pack survives an attack after which it is opened or made again and every picture in it is the source's as it is now,
bad files named as the source names them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from kills import killed, moments
from trials import command, forked, start

from tests.conftest import write_photos
from tests.harness import DAMAGES


def filled(folder: Path) -> Path:
    """A folder of pictures in two classes, one of them broken."""
    shutil.rmtree(folder, ignore_errors=True)
    write_photos(folder, count=8, side=40)
    (folder / "class0" / "broken.png").write_bytes(b"no picture")
    return folder


def packed(folder: Path, packs: Path) -> int:
    """Pack or open, and compare every picture; 0 where all is as in the source."""
    from selftaught.data import open_source, pack
    from selftaught.data.cache import reduce_to
    from selftaught.errors import SampleError

    source = open_source(folder, split="all")
    pack_ = pack(source, 24, packs)
    for i, name in enumerate(source.names):
        try:
            wanted = reduce_to(source.read(i), 24)
        except SampleError as error:
            try:
                pack_.read(i)
            except SampleError as other:
                if other.reason == error.reason:
                    continue
            print(f"{name}: not said to be bad", file=sys.stderr)
            return 3
        if not np.array_equal(pack_.read(i), wanted):
            print(f"{name}: other pixels", file=sys.stderr)
            return 3
    return 0


CHANGES: dict[str, Callable[[Path], object]] = {
    "a picture changed": lambda f: cv2.imwrite(str(f / "class0/000.png"), np.full((40, 40, 3), 7, np.uint8)),
    "a picture added": lambda f: cv2.imwrite(str(f / "class1/new.png"), np.full((40, 40, 3), 7, np.uint8)),
    "a picture removed": lambda f: (f / "class1/001.png").unlink(),
    "a picture renamed": lambda f: (f / "class1/001.png").rename(f / "class1/zzz.png"),
    "two pictures swapped": lambda f: _swap(f / "class0/000.png", f / "class1/001.png"),
    "a broken picture mended": lambda f: shutil.copy(f / "class0/000.png", f / "class0/broken.png"),
    "a class renamed": lambda f: (f / "class1").rename(f / "other"),
}


def _swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def main() -> int:
    """Attack and open again."""
    table, place, options = start("cache", str(__doc__).splitlines()[0])
    folder, packs = place / "in", place / "packs"

    def fresh() -> None:
        filled(folder)
        shutil.rmtree(packs, ignore_errors=True)

    with table.row("used twice, and by two commands at once") as row:
        fresh()
        for turn in ("first", "second"):
            row.add(turn, forked(lambda: packed(folder, packs)).fault)
        fresh()
        pid = os.fork()
        if pid == 0:
            os._exit(packed(folder, packs))
        trial = forked(lambda: packed(folder, packs))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        row.add("at once", trial.fault or (f"exit {status}" if status else ""))
    with table.row("killed before and after every file") as row:
        fresh()
        seams = moments(lambda: packed(folder, packs), place / "seams")
        for moment in range(seams):
            fresh()
            trial = killed(lambda: packed(folder, packs), moment)
            fault = "" if trial.code == -signal.SIGKILL else "was not killed"
            row.add(f"moment {moment}", fault or forked(lambda: packed(folder, packs)).fault)
    with table.row("each of its files damaged in every way") as row:
        fresh()
        forked(lambda: packed(folder, packs))
        whole = place / "whole"
        shutil.copytree(packs, whole)
        for path in sorted(p for p in whole.rglob("*") if p.is_file() and p.suffix != ".lock"):
            for name, damage in DAMAGES.items():
                shutil.rmtree(packs)
                shutil.copytree(whole, packs)
                target = packs / path.relative_to(whole)
                content = target.read_bytes()
                target.unlink()
                if damage == "folder":
                    target.mkdir()
                elif callable(damage):
                    target.write_bytes(damage(content))
                row.add(f"{path.name} {name}", forked(lambda: packed(folder, packs)).fault)
    with table.row("its source changed in between") as row:
        for name, change in CHANGES.items():
            fresh()
            forked(lambda: packed(folder, packs))
            change(folder)
            row.add(name, forked(lambda: packed(folder, packs)).fault)
    with table.row("train --cache: the same weights with it, with it again, and without") as row:
        fresh()
        tiny = ["--encoder", "cnn-small", "--image-size", "16", "--projector", "16-8", "--steps", "2", "--batch-size",
                "4", "--workers", "0", "--quiet", "--max-skip", "0.5"]  # fmt: skip
        os.environ["SELFTAUGHT_CACHE"] = str(place / "cache")
        found = []
        for number, more in enumerate((["--cache"], ["--cache"], [])):
            out = place / f"run{number}"
            trial = command("train", "simclr", "--data", folder, "--out", out, *tiny, *more)
            fault = trial.fault or trial.said
            if not fault:
                found.append((out / "encoder.safetensors").read_bytes())
                fault = "" if found[-1] == found[0] else "other weights"
            row.add(f"run {number}", fault)
    _ = options
    return min(table.store(), 1)


if __name__ == "__main__":
    sys.exit(main())
