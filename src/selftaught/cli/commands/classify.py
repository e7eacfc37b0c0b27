"""``classify``: pictures sorted into classes that are given in words."""

from __future__ import annotations

import argparse
import sys

from selftaught.catalog.rules import Workers
from selftaught.cli._command import Command
from selftaught.cli.options import checked, names


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", help="folder of the run")
    sub.add_argument("input", help="source of pictures")
    sub.add_argument("--classes", required=True, type=names, metavar="A,B", help="the classes, such as cat,dog,bird")
    sub.add_argument(
        "--templates", default="plain", help="prompts: plain, seven, name, clip, or a file of lines with {}"
    )
    sub.add_argument("--out", help="table of all probabilities (.csv); default prints the likeliest class")
    checked(sub, "--workers", Workers, "loader processes; -1 chooses", default=-1)


def _call(options: argparse.Namespace) -> None:
    import selftaught

    given = {"templates": options.templates, "out": options.out, "workers": options.workers}
    table = selftaught.load(options.run).classify(options.input, options.classes, **given)
    if options.out:
        print(f"{len(table.names)} written to {options.out}")
    else:
        for name, shares in zip(table.names, table.probabilities, strict=True):
            print(f"{shares.max():.3f}  {table.classes[int(shares.argmax())]}  {name}")
    if table.skipped:
        print(f"{len(table.skipped)} could not be used", file=sys.stderr)


COMMAND = Command(
    "classify",
    "pictures sorted into classes given in words, by a run that knows words (clip)",
    _options,
    _call,
    order=33,
)
