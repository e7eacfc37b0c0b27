"""Values that make no sense, on the command line and in config.yaml: refused in a line, before anything is made.

    python benchmarks/robustness/values.py [--only WORDS]

A value survives that is refused with exit code 2 and one line that names it, without a folder left that would block the
corrected command. What only reads oddly (`4e-3` is text in YAML) must be taken for what it means. What would run away
(millions of workers, pipes, a table of a million columns) is refused, bounded or passed over within seconds.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from trials import Row, Table, Trial, command, forked, start, tiny_run

from tests.harness import TINY_RUNS

TINY = [
    "--encoder", "cnn-small", "--image-size", "16", "--projector", "16-8", "--augment", "grey", "--batch-size", "16",
    "--steps", "1", "--workers", "0", "--quiet", "--no-report", "--knn-every", "0",
]  # fmt: skip
NAMED = {
    "epochs": ("nan", "inf"), "accumulate": ("0",), "clip": ("nan", "-1"), "seed": ("-1", "4294967296"),
    "devices": ("0",), "nodes": ("0",), "strategy": ("x",), "log-every": ("0",), "lr": ("nan",), "momentum": ("2",),
    "warmup": ("nan",), "projector": ("a-b",), "batch-size": ("0",), "encoder": ("resnet18.nosuchtag",),
    "max-skip": ("-1", "nan", "7"), "checkpoint-minutes": ("-1",), "knn-every": ("-0.5", "nan", "5"),
    "weight-decay": ("-1",), "workers": ("-7",),
}  # fmt: skip
"""Options of a training that the issue names."""
MORE = {
    "epochs": ("0", "-1", "many"), "steps": ("0", "1.5", "nan"), "batch-size": ("nan", "1e9", "-3"),
    "ema": ("-1", "1", "nan", "x"), "precision": ("64",), "device": ("tpu9",), "checkpoint-steps": ("-1",),
    "monitor": ("x",), "temperature": ("0", "-1", "nan"), "image-size": ("-5", "x"), "stem": ("x",),
    "augment": ("x",), "loggers": ("x",), "preset": ("x",), "split": ("x",), "by": ("x",), "class-tasks": ("-1",),
    "memory": ("2",), "continual": ("x",), "init": ("nowhere",), "view-device": ("x",), "crop": ("0", "nan"),
    "lr": ("-1", "inf"), "optimizer": ("x",), "projector": ("0", "-", "16--8"), "nodes": ("-1",), "devices": ("x",),
    "encoder": ("", "torch:x"), "then": ("nowhere",), "anneal": ("x",),
}  # fmt: skip
SOURCES = ("torchvision:VisionDataset", "torchvision:x", "~nouser/x", "", "digits?n=0", "digits?n=x", "digits?x=1",
           "pairs:x", "volumes:x", "hf:", "devices:x", "photos:nothing")  # fmt: skip
CONFIG: list[tuple[str, str, Any]] = [
    ("settings", "cache", "no"), ("settings", "ema", "x"), ("settings", "epochs", ".nan"),
    ("settings", "steps", "three"), ("settings", "batch_size", 0), ("settings", "batch_size", [16]),
    ("settings", "workers", None), ("settings", "seed", 4294967296), ("settings", "seed", -1),
    ("settings", "device", 3), ("settings", "loggers", {"a": 1}), ("settings", "max_skip", 7),
    ("settings", "precision", 65), ("settings", "compile", "perhaps"), ("settings", "data", None),
    ("settings", "data", ["a"]), ("settings", "clip", float("nan")), ("settings", "streams", "x"),
    ("options", "projector", [16, "a"]), ("options", "lr", "4e-3"), ("options", "encoder", 7),
    ("options", "image_size", 16.5), ("options", "temperature", "hot"), ("options", "nosuchoption", 1),
]  # fmt: skip
MEANT = {("options", "lr")}
"""What may be taken for what it means as well as refused."""


def refused(trial: Trial, out: Path, named: str = "") -> str:
    """What is wrong with how a value was met."""
    fault = trial.fault
    if not fault and trial.code == 0:
        fault = "accepted"
    if not fault and len([line for line in trial.err.splitlines() if line.strip()]) > 1 and "usage:" not in trial.err:
        fault = f"more than a line: {trial.err.strip().splitlines()[0][:80]}"
    if not fault and named and named not in trial.said:
        fault = f"does not name it: {trial.said[:100]}"
    if out.exists():
        fault = fault or "a folder is left that blocks the corrected command"
        shutil.rmtree(out, ignore_errors=True)
    return fault


def training(table: Table, place: Path, what: str, values: dict[str, Sequence[str]]) -> None:
    """Options of a training."""
    out = place / "run"
    with table.row(what) as row:
        for option, tried in values.items():
            for value in tried:
                trial = command(
                    "train", "simclr", "--data", "digits?n=60", "--out", out, *TINY, f"--{option}={value}", place=place
                )
                row.add(f"--{option}={value}", refused(trial, out))


def of_other_commands(row: Row, place: Path, run: Path, words: Path) -> None:
    """Options of methods and commands that the issue names, and more of their kind."""
    out = place / "out"
    grey = place / "grey"
    tries: list[list[object]] = [
        ["train", "c-bsn", "--data", grey, "--batch-size", 0, "--steps", 1, "--out", out],
        ["train", "c-bsn", "--data", grey, "--patch", 0, "--steps", 1, "--out", out],
        ["train", "supervised", "--data", "digits?n=60", "--decay-every", "nan", "--steps", 1, "--out", out],
        ["train", "supervised", "--data", "digits?n=60", "--decay-every", -1, "--steps", 1, "--out", out],
        ["train", "moco-v2", "--data", "digits?n=60", *TINY, "--queue", 8, "--out", out],
        ["train", "swav", "--data", "digits?n=60", *TINY, "--prototypes", "0", "--out", out],
        ["train", "swav", "--data", "digits?n=60", *TINY, "--iters", -1, "--out", out],
        ["apply", run, "digits?n=9", "--out", out, "--tile", -5],
        ["apply", run, "digits?n=9", "--out", out / "x.npy", "--workers", -7],
        ["apply", run, "digits?n=9", "--out", out / "x.exe"],
        ["evaluate", run, "--protocol", "x"],
        ["evaluate", run, "--limit", -1],
        ["evaluate", run, "--seeds", 0],
        ["export", run, "--format", "x", "--out", out],
        ["curate", "digits?n=60", "--keep", "0", "--out", out],
        ["curate", "digits?n=60", "--keep", "nan", "--out", out],
        ["curate", "digits?n=60", "--keep", "-3", "--out", out],
        ["curate", "digits?n=60", "--keep", "0.5", "--iterations", 0, "--out", out],
        ["curate", "digits?n=60", "--keep", "0.5", "--levels", "a-b", "--out", out],
        ["curate", "digits?n=60", "--selection", "semdedup", "--eps", "nan", "--out", out],
        ["degrade", "noise?sigma=x", grey, out],
        ["degrade", "noise", grey, out, "--seed", -1],
        ["degrade", "blur?size=0", grey, out],
        ["degrade", "low-res?scale=0", grey, out],
        ["degrade", "jpeg?quality=900", grey, out],
        ["degrade", "fog?strength=7", grey, out],
        ["search", words, "scenes?train=4&test=2", "red", "--count", 0],
        ["search", run, "digits?n=9", "red"],
        ["data", "check", "no/such"],
        ["report", run, "no/such"],
        ["benchmark", "no.yaml"],
        ["benchmark", "claims", "--method", "x"],
    ]
    for argv in tries:
        trial = command(*argv, place=place)
        shown = " ".join(str(a) for a in argv).replace(str(place), "")
        row.add(shown, refused(trial, out))


def configurations(table: Table, place: Path, run: Path) -> None:
    """Values in a run's config.yaml."""
    text, out = (run / "config.yaml").read_text(), place / "from-config"
    with table.row("config.yaml") as row:
        for part, name, value in CONFIG:
            content = yaml.safe_load(text)
            content[part][name] = value
            (place / "changed.yaml").write_text(yaml.safe_dump(content))
            trial = command("train", "--config", place / "changed.yaml", "--out", out)
            taken = (part, name) in MEANT and trial.code == 0
            fault = "" if taken else refused(trial, out)
            shutil.rmtree(out, ignore_errors=True)
            row.add(f"{part}.{name}: {value!r}", fault)


def running_away(row: Row, place: Path, run: Path) -> None:
    """What would take for ever, or all memory."""
    out = place / "run-away"
    for argv in (["--workers", "5000000"], ["--image-size", "100000"]):
        trial = command("train", "simclr", "--data", "digits?n=60", "--out", out, *TINY, *argv, seconds=60, place=place)
        row.add(" ".join(argv), refused(trial, out))
    trial = command(
        "train", "simclr", "--data", "digits?n=60", "--out", out, *TINY, "--steps", 3, "--knn-every", "1e-9",
        seconds=60, place=place,
    )  # fmt: skip
    row.add("--knn-every 1e-9", trial.fault)
    shutil.rmtree(out, ignore_errors=True)
    images = place / "with-pipes"
    shutil.copytree(place / "grey", images)
    os.mkfifo(images / "pipe.png")
    (images / "endless.png").symlink_to("/dev/zero")
    (images / "random.jpg").symlink_to("/dev/urandom")
    for number, source in enumerate((images, f"{images}/*.png", f"{images}/**/*", [images / "pipe.png"])):
        given = source if not isinstance(source, list) else source[0]
        for what, argv in (
            ("data check", ["data", "check", given]),
            ("apply", ["apply", run, given, "--out", place / f"piped{number}.npy", "--workers", 0]),
        ):
            trial = command(*argv, seconds=60, place=place)
            row.add(f"{what} of pipes and devices in {str(given).replace(str(place), '')}", trial.fault)
    wide = place / "wide.csv"
    wide.write_text(",".join(f"c{i}" for i in range(1_000_000)) + "\n" + ",".join("1" * 1_000_000) + "\n")

    def bounded() -> int:
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
        from selftaught.cli import main

        return main(["data", "check", str(wide)])

    trial = forked(bounded, seconds=60)  # data check ends with 1 where a file is unusable
    row.add("a table of a million columns", "" if trial.code == 1 and "columns" in trial.out else trial.fault)
    header = place / "claims.npz"
    _boast(header)
    row.add("an npz that claims 27 TiB", refused(command("data", "check", header, seconds=60), place / "none"))


def _boast(path: Path) -> None:
    """An archive whose array's header says a shape of 27 TiB."""
    import io
    import zipfile

    import numpy as np

    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": (10_000_000, 1000, 1000, 3)}
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", buffer.getvalue() + bytes(100))


def main() -> int:
    """Try them all."""
    table, place, options = start("values", str(__doc__).splitlines()[0])
    TINY_RUNS["restorer"].source(place)
    for kind in ("encoder", "image and text"):
        shutil.copytree(tiny_run(kind), place / kind)
    run, words = place / "encoder", place / "image and text"
    if table.wanted("train, values that the issue names"):
        training(table, place, "train, values that the issue names", NAMED)
    if table.wanted("train, more values"):
        training(table, place, "train, more values", MORE)
    if table.wanted(what := "train, sources that are none"):
        with table.row(what) as row:
            for source in SOURCES:
                trial = command("train", "simclr", "--data", source, "--out", place / "run", *TINY, place=place)
                row.add(f"--data {source!r}", refused(trial, place / "run"))
    if table.wanted(what := "other methods and commands"):
        with table.row(what) as row:
            of_other_commands(row, place, run, words)
    if table.wanted("config.yaml"):
        configurations(table, place, run)
    if table.wanted(what := "what would run away: bounded, refused or passed over within a minute"):
        with table.row(what) as row:
            running_away(row, place, run)
    return min(table.store(bool(options.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
