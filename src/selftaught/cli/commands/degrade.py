"""``degrade``: a degraded copy of a folder of pictures, to test a restoration with."""

from __future__ import annotations

import argparse
import sys

from selftaught.catalog.rules import Seed
from selftaught.cli._command import Command
from selftaught.cli.options import checked


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "recipe",
        help="blur, noise, correlated-noise, low-res, jpeg, camera, night, text, reflection?of=FOLDER, rain, fog, "
        "snow, dark, weather?kind=rain+fog; rolling-shutter (videos); or a YAML file",
    )
    sub.add_argument("input", help="source of pictures, or of videos")
    sub.add_argument("out", help="folder for the copies, and for degraded.csv, which says what was done to each")
    checked(sub, "--seed", Seed, "fixes what is drawn", default=0)
    sub.add_argument("--overwrite", action="store_true", help="replace what another call wrote to the folder")


def _call(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from selftaught.run.degrading import TABLE, degrade
    from selftaught.run.ranks import is_first

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("degrade", total=None)
        written = degrade(
            options.recipe,
            options.input,
            options.out,
            seed=options.seed,
            overwrite=options.overwrite,
            say=lambda done: bar.update(task, completed=done),
        )
    if not is_first():
        return
    kept = f", {written.kept} were there already" if written.kept else ""
    print(f"{written} written to {options.out}{kept}; what was done to each: {written.out / TABLE}")
    if written.skipped:
        print(f"{len(written.skipped)} could not be used, listed in {written.listed}")


COMMAND = Command(
    "degrade",
    "a degraded copy of a folder: blur, noise, camera, low-res, rolling shutter ...",
    _options,
    _call,
    order=35,
)
