"""Files that want more than to be read: bombs, archives that climb out, pickles and YAML that run code.

    python benchmarks/robustness/hostile.py [--only WORDS]

A command survives that neither runs what a file brings, nor writes outside its folder, nor takes 4 GiB of memory or a
minute of processor time; it may pass the file over, or refuse it in a line.
"""

from __future__ import annotations

import io
import os
import pickle
import resource
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from trials import Row, Trial, forked, start, tiny_run

LIMIT = 4 << 30


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def limited(*arguments: object) -> Trial:
    """A command with 4 GiB more memory than it began with, and a minute of processor time."""

    def work() -> int:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT, used + LIMIT))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        from selftaught.cli import main

        return main([str(a) for a in arguments])

    trial = forked(work, seconds=600)
    listed = arguments[:2] == ("data", "check") and trial.code == 1  # its way to say that some files are unusable
    return replace(trial, code=0) if listed else trial


def png(width: int, height: int, path: Path) -> Path:
    """A grey PNG of zeros, which is small on disk whatever its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(min(height, 20000))) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def boasting(path: Path, shape: tuple[int, ...]) -> Path:
    """A .npy file whose header says a shape that is not there."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.write(bytes(1000))
    return path


def pickles(place: Path, mark: Path) -> dict[str, Path]:
    """Files of every kind that could hold a pickle."""
    folder = place / "pickles"
    folder.mkdir()
    evil = pickle.dumps(Attack(mark))
    objects = np.array([Attack(mark)] * 3, dtype=object)
    np.save(folder / "objects.npy", objects, allow_pickle=True)
    np.savez(folder / "objects.npz", images=np.zeros((3, 8, 8), np.uint8), labels=objects)
    np.savez(folder / "series.npz", x=objects)
    for name in ("x.pt", "x.pth", "x.ckpt", "x.bin", "x.safetensors"):
        (folder / name).write_bytes(evil)
    with zipfile.ZipFile(folder / "zipped.pt", "w") as file:
        file.writestr("archive/data.pkl", evil)
        file.writestr("archive/version", "3")
    with tarfile.open(folder / "shard.tar", "w") as file:
        for name, data in (("a.pickle", evil), ("a.pyd", evil), ("a.png", b"no picture"), ("a.npy", evil)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return {p.name: p for p in sorted(folder.iterdir())}


def main() -> int:
    """Every file with every command that would read it."""
    table, place, options = start("hostile", str(__doc__).splitlines()[0])
    run, mark = tiny_run("encoder"), place / "executed"
    tiny = ["--encoder", "cnn-small", "--image-size", "16", "--projector", "16-8", "--augment", "grey", "--steps", "1",
            "--batch-size", "4", "--workers", "0", "--quiet"]  # fmt: skip

    def train(*arguments: object) -> Trial:
        shutil.rmtree(place / "out", ignore_errors=True)
        return limited("train", "simclr", "--out", place / "out", *tiny, *arguments)

    def ran() -> str:
        if mark.exists():
            mark.unlink()
            return "it was executed"
        return ""

    def pickled(row: Row) -> None:
        for name, path in pickles(place, mark).items():
            if name in ("objects.npy", "objects.npz", "series.npz", "shard.tar"):
                source = f"wds:{path}" if name == "shard.tar" else path
                for what, trial in (("check", limited("data", "check", source)), ("train", train("--data", source))):
                    row.add(f"{name}, {what}", trial.fault or ran())
            else:
                row.add(f"{name}, --init", train("--data", "digits?n=60", "--init", path).fault or ran())
            if name in ("x.pt", "zipped.pt", "x.safetensors"):
                for inner in ("checkpoints/train.ckpt", "encoder.safetensors"):
                    shutil.rmtree(place / "copy", ignore_errors=True)
                    shutil.copytree(run, place / "copy")
                    shutil.copy(path, place / "copy" / inner)
                    (place / "copy/state.json").unlink()
                    for argv in (["train", "--resume"], ["apply"], ["evaluate"], ["export"], ["report"]):
                        more = ["digits?n=9", "--out", place / "copy.npy"] if argv == ["apply"] else []
                        row.add(
                            f"{name} as {inner}, {argv[0]}",
                            limited(*argv, place / "copy", *more).fault or ran(),
                        )
        for text in ("!!python/object/apply:pathlib.Path.touch\n- !!python/object/new:pathlib.PosixPath [EXECUTED]\n",):
            (place / "evil.yaml").write_text(text.replace("EXECUTED", str(mark)))
            for argv in (
                ["train", "simclr", "--config", place / "evil.yaml"], ["benchmark", place / "evil.yaml"],
                ["degrade", place / "evil.yaml", "digits?n=9", place / "out-degraded"],
            ):  # fmt: skip
                row.add(f"YAML tags, {argv[0]}", limited(*argv).fault or ran())

    def bombs(row: Row) -> None:
        folder = place / "bombs"
        folder.mkdir()
        for i in range(6):
            cv2.imwrite(str(folder / f"{i}.png"), np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8))
        png(60000, 60000, folder / "wide.png")
        png(20000, 20000, folder / "large.png")
        boasting(folder / "boast.npy", (100000, 100000, 30))
        for what, trial in (
            ("pictures, check", limited("data", "check", folder)),
            ("pictures, train", train("--data", folder, "--max-skip", "0.9", "--steps", 4)),
            ("pictures, apply", limited("apply", run, folder, "--out", place / "bombs.npy", "--workers", 0)),
            ("an array's header", limited("data", "check", boasting(place / "boast.npy", (10**7, 1000, 1000, 3)))),
        ):
            row.add(what, trial.fault)
        with (
            zipfile.ZipFile(place / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file,
            file.open("images.npy", "w", force_zip64=True) as one,
        ):
            np.lib.format.write_array_header_1_0(one, {"descr": "|u1", "fortran_order": False, "shape": (6 << 30,)})
            for _ in range(6 << 10):
                one.write(bytes(1 << 20))
        os.environ["SELFTAUGHT_CACHE"] = str(place / "cache")
        row.add("an archive that unpacks to 6 GiB", limited("data", "check", place / "bomb.npz").fault)
        (place / "bomb.yaml").write_text(
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
        )
        row.add("YAML that multiplies", limited("benchmark", place / "bomb.yaml").fault)

    def slips(row: Row) -> None:
        inside = place / "deep" / "er"
        inside.mkdir(parents=True)
        picture = cv2.imencode(".png", np.zeros((16, 16), np.uint8))[1].tobytes()
        with tarfile.open(inside / "slip.tar", "w") as tar:
            for name in ("../../escaped.png", "/tmp/escaped-by-robustness.png", "ok.png"):
                entry = tarfile.TarInfo(name)
                entry.size = len(picture)
                tar.addfile(entry, io.BytesIO(picture))
        np.savez(
            inside / "slip.npz", images=np.zeros((2, 16, 16), np.uint8), names=np.array(["../../escaped", "/escaped"])
        )
        before = {p for p in place.rglob("*") if inside not in p.parents}
        for source in (f"wds:{inside / 'slip.tar'}", inside / "slip.npz"):
            out = inside / "out"
            for argv in (["data", "check", source], ["apply", run, source, "--out", out / "e.npy", "--workers", 0],
                         ["degrade", "noise", source, out / "copies"]):  # fmt: skip
                out.mkdir(exist_ok=True)
                trial = limited(*argv)
                after = {p for p in place.rglob("*") if inside not in p.parents}
                escaped = after - before or Path("/tmp/escaped-by-robustness.png").exists()
                row.add(f"{Path(str(source)).name}, {argv[0]}", trial.fault or ("written outside" if escaped else ""))

    for what, attack in {
        "pickles in data, weights and runs: nothing is executed": pickled,
        "bombs: bounded memory and time": bombs,
        "archives and names that climb out: nothing outside": slips,
    }.items():
        if table.wanted(what):
            with table.row(what) as row:
                attack(row)
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
