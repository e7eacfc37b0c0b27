"""The commands ``search`` and ``classify``: pictures found and sorted by words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Annotated

from selftaught.catalog.rules import Count, Range
from selftaught.cli_options import checked

__all__ = ["add_commands"]


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare both commands."""
    sub = command("search", _search, "pictures that a text fits, by a run that knows words (clip)")
    sub.add_argument("run", help="folder of the run")
    sub.add_argument("input", help="source of pictures; its index in the run's folder grows with it")
    sub.add_argument("query", help="what to look for, such as 'a red car at night'")
    checked(sub, "--count", Count, "how many pictures (default 10)", default=10)
    checked(sub, "--workers", Annotated[int, Range(-1)], "loader processes; -1 chooses", default=-1)
    sub = command(
        "classify", _classify, "pictures sorted into classes given in words, by a run that knows words (clip)"
    )
    sub.add_argument("run", help="folder of the run")
    sub.add_argument("input", help="source of pictures")
    sub.add_argument("--classes", required=True, metavar="A,B", help="the classes, such as cat,dog,bird")
    sub.add_argument(
        "--templates", default="plain", help="prompts: plain, seven, name, clip, or a file of lines with {}"
    )
    sub.add_argument("--out", help="table of all probabilities (.csv); default prints the likeliest class")
    checked(sub, "--workers", Annotated[int, Range(-1)], "loader processes; -1 chooses", default=-1)


def _search(options: argparse.Namespace) -> None:
    import selftaught

    run = selftaught.load(options.run)
    found = run.search(options.input, options.query, count=options.count, workers=options.workers)
    for one in found:
        print(f"{one.score:.3f}  {one.name}")


def _classify(options: argparse.Namespace) -> None:
    import selftaught

    run = selftaught.load(options.run)
    classes = [name for name in options.classes.split(",") if name]
    table = run.classify(options.input, classes, templates=options.templates, out=options.out, workers=options.workers)
    if options.out:
        print(f"{len(table)} written to {options.out}")
    else:
        for name, (likeliest, share) in table.items():
            print(f"{share:.3f}  {likeliest}  {name}")
    if table.skipped:
        print(f"{len(table.skipped)} could not be used", file=sys.stderr)
