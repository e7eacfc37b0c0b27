"""File names of every kind: read, learnt from, listed, written under their names, and shown without running anything.

    python benchmarks/robustness/names.py [--only WORDS] [--place FOLDER --minutes 14]

Each of the names holds a picture in a folder of its own. A name survives a command that ends well and whose output says
the name, to the byte where a file system can hold it.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from trials import Row, command, start, tiny_run

NAMES: dict[str, bytes] = {
    "plain": b"plain.png",
    "a space at the end of the stem": b"two words .png",
    "a new line": b"new\nline.png",
    "a tab and quotes": b'tab\t"quoted".png',
    "commas": b"a,b,c.png",
    "Latin-1, not UTF-8": b"caf\xe9.png",
    "bytes that are no text": b"\xff\xfe\x80.png",
    "a surrogate in UTF-8": b"\xed\xa0\x80.png",
    "other scripts": "日本 ελ عربي.png".encode(),
    "250 bytes": b"n" * 246 + b".png",
    "255 bytes": b"m" * 251 + b".png",
    "a formula": b"=cmd|' C calc'!A1.png",
    "a plus and an at sign": b"+@SUM(1).png",
    "HTML": b"<img src=x onerror=alert(1)>.png",
    "a leading dash": b"--out.png",
    "wildcards": b"[a-z]*?.png",
}


def picture(folder: Path, name: bytes, broken: bool = False) -> Path:
    """A folder with a picture of that name (or a broken file), and three others beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(8):
        cv2.imwrite(str(folder / f"z{i}.png"), rng.integers(0, 256, (32, 32), dtype=np.uint8))
    data = (folder / "z0.png").read_bytes()
    with open(os.path.join(os.fsencode(folder), name), "wb") as file:
        file.write(data[:40] if broken else data)
    return folder


def rows(path: Path) -> list[list[str]]:
    """A table of text, names to the byte."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def listed(path: Path, name: bytes) -> str:
    """What is wrong with how a CSV lists a name."""
    if not path.exists():
        return f"no {path.name}"
    found, wanted = rows(path), os.fsdecode(name)
    width = {len(row) for row in found}
    if len(width) != 1:
        return f"{path.name}: rows of {sorted(width)} cells"
    cells = {cell for row in found[1:] for cell in row}
    if any(cell[:1] in "=+@\t\r-" and not cell[1:2].isdigit() for cell in cells if cell):
        return f"{path.name}: a cell that a spreadsheet runs"
    return "" if wanted in cells or f"'{wanted}" in cells else f"{path.name}: the name is not in it"


def main() -> int:
    """Every name with every command."""
    table, place, options = start("names", str(__doc__).splitlines()[0])
    encoder, restorer = tiny_run("encoder"), tiny_run("restorer")
    for what, name in NAMES.items():
        title = f"{what}: check, tables, restored, degraded, trained on, broken, curated, reported"
        if not table.wanted(title):
            continue
        table.journal.pause()
        with table.row(title) as row:
            folder, out = picture(place / "in", name), place / "out"

            def fresh(out: Path = out) -> Path:
                for path in place.glob("out*"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                return out

            trial = command("data", "check", folder)
            row.add("data check", trial.fault or trial.said)
            for suffix in (".npy", ".csv", ".parquet"):
                target = fresh().with_name(f"out{suffix}")
                trial = command("apply", encoder, folder, "--out", target, "--workers", 0)
                fault = trial.fault or trial.said
                if not fault and suffix == ".npy":
                    fault = listed(target.with_name(f"{target.name}.names.csv"), name)
                if not fault and suffix == ".csv":
                    fault = listed(target, name)
                row.add(f"apply to {suffix}", fault)
            for label, argv in (
                ("apply to a folder", ["apply", restorer, folder, "--out", out, "--workers", 0]),
                ("degrade", ["degrade", "noise", folder, out]),
            ):
                fresh()
                trial = command(*argv)
                fault = trial.fault or trial.said
                wanted = os.path.join(os.fsencode(out), name)
                short = len(name) > 251 and len(list(out.rglob("*.png"))) == 9
                if not fault and not os.path.exists(wanted) and not short:
                    fault = "no file of that name"
                if not fault and label == "degrade":
                    fault = listed(out / "degraded.csv", name)
                row.add(label, fault)
            fresh()
            tiny = ["--encoder", "cnn-small", "--image-size", "16", "--projector", "16-8", "--augment", "grey",
                    "--steps", "1", "--batch-size", "4", "--workers", "0", "--quiet"]  # fmt: skip
            trial = command("train", "simclr", "--data", folder, "--out", out, *tiny)
            row.add("train", trial.fault or trial.said)
            trial = command("report", out)
            page = (out / "report.html").read_bytes() if (out / "report.html").exists() else b""
            fault = trial.fault or trial.said or ("runs in the page" if b"<img src=x onerror" in page else "")
            row.add("report", fault)
            picture(folder, name, broken=True)
            fresh()
            trial = command("train", "simclr", "--data", folder, "--out", out, *tiny, "--max-skip", "0.5", "--steps", 6)
            row.add("train with it broken", trial.fault or trial.said or listed(out / "skipped.csv", name))
            fresh()
            trial = command("apply", encoder, folder, "--out", place / "out.npy", "--workers", 0)
            row.add("apply with it broken", trial.fault or trial.said or listed(place / "out.npy.skipped.csv", name))
            fresh()
            trial = command("curate", picture(folder, name), "--keep", "0.99", "--out", out)
            row.add("curate", trial.fault or trial.said)
    if table.wanted(what := "names that meet (x/../a, y/../a), results inside the input, a name twice"):
        with table.row(what) as row:
            meeting(row, place, restorer)
    return min(table.store(bool(options.only)), 1)


def meeting(row: Row, place: Path, restorer: Path) -> None:
    """Names that would meet in one place, and a folder of results inside the input."""
    rng = np.random.default_rng(0)
    out = place / "met"
    for part in ("x", "y"):
        (place / "meet" / part).mkdir(parents=True)
        cv2.imwrite(str(place / "meet" / part / "a.png"), rng.integers(0, 256, (32, 32), dtype=np.uint8))
    names = place / "meet.npz"
    pictures = rng.integers(0, 256, (4, 32, 32, 1), dtype=np.uint8)
    np.savez(names, images=pictures, names=np.array(["x/../a.png", "y/../a.png", "/a.png", "a.png"]))
    for label, given in (("a folder", place / "meet"), ("an archive", names)):
        shutil.rmtree(out, ignore_errors=True)
        trial = command("apply", restorer, given, "--out", out, "--workers", 0)
        count = len([p for p in out.rglob("*") if p.suffix in (".png", ".npy", ".tif") and p.is_file()])
        wanted = 2 if label == "a folder" else 4
        outside = [p for p in (place / "a.png", place.parent / "a.png", Path("/a.png")) if p.exists()]
        fault = trial.fault or trial.said or ("" if count == wanted else f"{count} of {wanted} files")
        row.add(label, fault or ("written outside" if outside else ""))
    inside = command("apply", restorer, place / "meet", "--out", place / "meet" / "out", "--workers", 0)
    row.add("results inside the input", inside.fault or ("accepted" if inside.code == 0 else ""))
    inside = command("degrade", "noise", place / "meet", place / "meet" / "out")
    row.add("copies inside the input", inside.fault or ("accepted" if inside.code == 0 else ""))


if __name__ == "__main__":
    sys.exit(main())
