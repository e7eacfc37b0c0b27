"""``curate``: a part of a source that is worth keeping, and why."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated, Literal

import selftaught
from selftaught.catalog.rules import Positive, Range, Seed
from selftaught.catalog.source import read_options
from selftaught.cli._command import Command
from selftaught.cli.options import add_option, checked, say

_RULE = Path(selftaught.__file__).parent / "data" / "curation" / "selection.py"


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", help="what to choose from: a folder, a file, a built-in data set")
    checked(sub, "--keep", Positive, "share to keep, such as 0.1; from 2 on a number of samples")
    text = "what sees the samples: a run's folder, timm:NAME, or pixels (default) for near-duplicates alone"
    sub.add_argument("--encoder", default="pixels", metavar="RUN", help=text)
    sub.add_argument("--out", help="folder for the list, the table and the report; default runs/curate-SOURCE")
    checked(
        sub, "--eps", Annotated[float, Range(0, 2)],
        "semdedup, in place of --keep: drop what has a cosine above 1 - eps with a kept sample",
    )  # fmt: skip
    checked(sub, "--seed", Seed, "fixes starts and draws", default=0)
    sub.add_argument("--split", default="all", help="part of the source: all (default), train, test")
    checked(
        sub,
        "--backend",
        Literal["torch", "faiss"],
        "what runs k-means; faiss needs the extra curation",
        default="torch",
    )
    sub.add_argument("--quiet", action="store_true", help="say nothing while at work")
    group = sub.add_argument_group("the rule")
    for option in read_options(_RULE, "SelectionOptions"):
        add_option(group, option, option.default)


def _call(options: argparse.Namespace) -> None:
    rule = [option.name for option in read_options(_RULE, "SelectionOptions")]
    taken = ("keep", "encoder", "out", "eps", "seed", "split", "backend", *rule)
    given = {name: getattr(options, name) for name in taken if getattr(options, name) is not None}
    found = selftaught.curate(options.source, say=say(options.quiet), **given)
    print(found.summary())


COMMAND = Command(
    "curate", "keep a diverse, balanced part of a source: list, reasons, report", _options, _call, order=35
)
