"""Caches: used twice, killed, damaged, their source changed, on full disks; what is read must be the source's own.

    python benchmarks/robustness/cache.py [--only WORDS]      (as root: it mounts a small tmpfs)

The packed caches of pictures and of videos, and the variants that GenView generates. A cache survives an attack after
which it is opened or made again and everything in it is what it is without a cache, bad files named as the source names
them. On a full disk a line and nothing half-written, and with room it goes on.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from disk import FREE, fill, judged, small_disk
from kills import killed, moments
from trials import Row, Table, Trial, command, forked, start

from tests.conftest import write_photos
from tests.data.test_video import write_video
from tests.harness import DAMAGES, harmed


# ---- what is kept ----------------------------------------------------------------------------------------------------
def pictures(folder: Path) -> None:
    """Pictures in two classes, one of them broken."""
    write_photos(folder, count=8, side=40)
    (folder / "class0" / "broken.png").write_bytes(b"no picture")


def videos(folder: Path) -> None:
    """Three videos in two classes, and a file that is none."""
    write_video(folder / "run" / "a.mp4", count=12)
    write_video(folder / "run" / "b.mp4", count=9)
    write_video(folder / "jump" / "c.avi", count=7, codec="mpeg4")
    (folder / "jump" / "broken.mp4").write_bytes(b"no video at all")


def packed(folder: Path, packs: Path) -> int:
    """Pack or open, and compare every sample; 0 where all is as in the source."""
    from selftaught.data import open_source, pack
    from selftaught.data.cache import reduce_to
    from selftaught.errors import SampleError

    source = open_source(folder, split="all")
    pack_ = pack(source, 24, packs)
    for i, name in enumerate(source.names):
        try:
            whole = source.read(i, 24)
            wanted = reduce_to(whole, 24) if whole.ndim == 3 else np.stack([reduce_to(frame, 24) for frame in whole])
        except SampleError as error:
            try:
                pack_.read(i)
            except SampleError as other:
                if other.reason == error.reason:
                    continue
            return said(f"{name}: not said to be bad")
        if not np.array_equal(pack_.read(i), wanted):
            return said(f"{name}: other pixels")
    return 0


def said(line: str) -> int:
    """Say what is wrong."""
    print(line, file=sys.stderr)
    return 3


def variants(folder: Path, **options: Any) -> list[np.ndarray]:
    """GenView's variants of the pictures of a folder, as a run would read them."""
    import torch

    from selftaught import methods
    from selftaught.data import open_source
    from selftaught.errors import SampleError

    given = {"encoder": "cnn-small", "image_size": 16, "base_preset": "laptop", "augment": "small", "gamma": 0.5,
             "generator": "autoencoder", "foreground": "autoencoder", "judge": "autoencoder", "autoencoder_steps": 2,
             "autoencoder_dim": 4}  # fmt: skip
    source = open_source(folder, split="all")
    torch.manual_seed(0)
    method: Any = methods.get("genview")(channels=source.channels, samples=len(source), **given | options)
    made = method.arranged({"data": source}, method.config)["data"]
    method.survey({"data": made})
    found = []
    for i in range(len(made)):
        try:
            found.append(made.sample(i, ["generated"])["generated"])
        except SampleError as error:
            found.append(np.frombuffer(error.reason.encode(), np.uint8))
    return found


def generated(folder: Path, kept: Path) -> int:
    """Generate or read the variants of two runs, of unlike options; they must be those of an empty cache."""
    for options in ({}, {"noise_mode": "constant", "noise_level": 300}):
        with tempfile.TemporaryDirectory() as empty:
            expected = variants(folder, variants=empty, **options)
        found = variants(folder, variants=str(kept), **options)
        if not all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True)):
            return said("other variants")
    return 0


@dataclass(frozen=True)
class Cache:
    """A kind of cache.

    Attributes:
        prepare: writes a source into a folder.
        use: fills or reads the cache of a source, and compares; 0 where all is right.
        changes: what happens to the source.
    """

    prepare: Callable[[Path], None]
    use: Callable[[Path, Path], int]
    changes: dict[str, Callable[[Path], object]]


def _swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


GREY = np.full((40, 40, 3), 7, np.uint8)
OF_PICTURES: dict[str, Callable[[Path], object]] = {
    "a picture changed": lambda f: cv2.imwrite(str(f / "class0/000.png"), GREY),
    "a picture added": lambda f: cv2.imwrite(str(f / "class1/new.png"), GREY),
    "a picture removed": lambda f: (f / "class1/001.png").unlink(),
    "a picture renamed": lambda f: (f / "class1/001.png").rename(f / "class1/zzz.png"),
    "two pictures swapped": lambda f: _swap(f / "class0/000.png", f / "class1/001.png"),
    "a broken picture mended": lambda f: shutil.copy(f / "class0/000.png", f / "class0/broken.png"),
    "a class renamed": lambda f: (f / "class1").rename(f / "other"),
}
OF_VIDEOS: dict[str, Callable[[Path], object]] = {
    "a video changed": lambda f: write_video(f / "run/a.mp4", count=20),
    "a video added": lambda f: write_video(f / "run/new.mp4", count=5),
    "a video removed": lambda f: (f / "run/b.mp4").unlink(),
    "a video renamed": lambda f: (f / "run/b.mp4").rename(f / "run/zzz.mp4"),
    "two videos swapped": lambda f: _swap(f / "run/a.mp4", f / "run/b.mp4"),
    "a broken video mended": lambda f: shutil.copy(f / "run/a.mp4", f / "jump/broken.mp4"),
}
CACHES = {
    "pictures": Cache(pictures, packed, OF_PICTURES),
    "videos": Cache(videos, packed, OF_VIDEOS),
    "variants": Cache(pictures, generated, OF_PICTURES),
}


# ---- attacks ---------------------------------------------------------------------------------------------------------
def attacked(table: Table, name: str, cache: Cache, place: Path) -> None:
    """Every attack on one kind of cache."""
    folder, kept, whole = place / "in", place / "kept", place / "whole"

    def fresh() -> None:
        for path in (folder, kept):
            shutil.rmtree(path, ignore_errors=True)
        cache.prepare(folder)

    def used(at: Path = kept) -> Trial:
        return forked(lambda: spoken(lambda: cache.use(folder, at)))

    def faulty() -> str:
        trial = used()
        left = [path.name for path in kept.rglob("*.part*")]
        return trial.fault or trial.said or (f"left behind: {left[0]}" if left else "")

    if table.wanted(what := f"{name}: used twice, and by two commands at once"):
        with table.row(what) as row:
            fresh()
            for turn in ("first", "second"):
                row.add(turn, faulty())
            fresh()
            pid = os.fork()
            if pid == 0:
                os._exit(cache.use(folder, kept))
            trial = used()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            row.add("at once", trial.fault or (f"exit {status}" if status else ""))
    if table.wanted(what := f"{name}: killed before and after every file"):
        with table.row(what) as row:
            fresh()
            seams = moments(lambda: cache.use(folder, kept), place / "seams")

            def kill(moment: int) -> str:
                fresh()
                trial = killed(lambda: cache.use(folder, kept), moment)
                return "was not killed" if trial.code != -signal.SIGKILL else faulty()

            for moment in range(seams):
                row.ask(f"moment {moment} of {seams}", lambda moment=moment: kill(moment))
    if table.wanted(what := f"{name}: each of its files damaged in every way"):
        with table.row(what) as row:
            damages(row, cache, folder, kept, whole, fresh, faulty)
    if table.wanted(what := f"{name}: its source changed in between"):
        with table.row(what) as row:
            for way, change in cache.changes.items():
                fresh()
                used()
                change(folder)
                row.add(way, faulty())
    if table.wanted(what := f"{name}: on a disk that is full but for 0, 12, 150 KiB, or read-only"):
        with table.row(what) as row:
            fresh()
            for how in (*FREE, "read-only"):
                shown = how if how == "read-only" else f"{int(how) >> 10} KiB free"
                row.add(shown, on_full_disk(place, how, lambda disk: used(disk / "kept")))


def damages(
    row: Row, cache: Cache, folder: Path, kept: Path, whole: Path, fresh: Callable[[], None], faulty: Callable[[], str]
) -> None:
    """Every damage of the files of a cache: of many of one suffix in one folder the first."""
    fresh()
    forked(lambda: cache.use(folder, kept))
    shutil.rmtree(whole, ignore_errors=True)
    shutil.copytree(kept, whole)
    files = sorted(p for p in whole.rglob("*") if p.is_file() and p.suffix != ".lock")
    first = {(p.suffix, len(p.relative_to(whole).parts), p.name[:5] * (p.suffix != ".png")): p for p in reversed(files)}

    def attack(path: Path, way: str) -> str:
        shutil.rmtree(kept)
        shutil.copytree(whole, kept)
        harmed(kept / path.relative_to(whole), way)
        return faulty()

    for path in sorted(first.values()):
        for way in DAMAGES:
            row.ask(f"{path.name} {way}", lambda path=path, way=way: attack(path, way))


def on_full_disk(place: Path, how: int | str, use: Callable[[Path], Trial]) -> str:
    """What is wrong with how a full or read-only disk was met, and with going on when there is room."""
    import subprocess

    with small_disk(place) as disk:
        if how == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        else:
            fill(disk, int(how))
        trial = use(disk)
        if how == "read-only":
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        (disk / "filler").unlink(missing_ok=True)
        parts = [path.name for path in disk.rglob("*.part*")]
        if fault := judged(trial) or (f"left behind: {parts[0]}" if parts and trial.code else ""):
            return fault
        again = use(disk)
        return again.fault or again.said


def spoken(work: Callable[[], int]) -> int:
    """Its code, 2 after a line where it refuses, as a command does."""
    from selftaught.errors import UserError

    try:
        return work()
    except UserError as error:
        print(f"selftaught: {error}", file=sys.stderr)
        return 2


def trained(table: Table, place: Path) -> None:
    """A training with the packed cache, twice, and without."""
    if not table.wanted(what := "train --cache: the same weights with it, with it again, and without"):
        return
    with table.row(what) as row:
        folder = place / "in"
        shutil.rmtree(folder, ignore_errors=True)
        pictures(folder)
        tiny = ["--encoder", "cnn-small", "--image-size", "16", "--projector", "16-8", "--steps", "2", "--batch-size",
                "4", "--workers", "0", "--quiet", "--max-skip", "0.5"]  # fmt: skip
        os.environ["SELFTAUGHT_CACHE"] = str(place / "cache")
        found: list[bytes] = []
        for number, more in enumerate((["--cache"], ["--cache"], [])):
            out = place / f"run{number}"
            trial = command("train", "simclr", "--data", folder, "--out", out, *tiny, *more)
            fault = trial.fault or trial.said
            if not fault:
                found.append((out / "encoder.safetensors").read_bytes())
                fault = "" if found[-1] == found[0] else "other weights"
            row.add(f"run {number}", fault)


def main() -> int:
    """Attack and open again."""
    table, place, options = start("cache", str(__doc__).splitlines()[0])
    for name, cache in CACHES.items():
        attacked(table, name, cache, place)
    trained(table, place)
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
