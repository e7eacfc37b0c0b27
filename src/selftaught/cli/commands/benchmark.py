"""``benchmark``: a grid of runs in a file, or one of the built-in benchmarks, each with options of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from selftaught.catalog.rules import Count
from selftaught.cli._command import Command
from selftaught.cli.benchmarks import BENCHMARKS
from selftaught.cli.options import Parser, checked
from selftaught.cli.options import say as teller
from selftaught.errors import UserError


def add_grid_options(sub: argparse.ArgumentParser) -> None:
    """Options of whatever runs a grid's cells."""
    sub.add_argument("--out", help="folder for results; the grid goes on there")
    checked(sub, "--workers", Count, "cells at a time on this machine")
    sub.add_argument("--cluster", help="slurm: every cell a job, through submitit")


def _call(arguments: Sequence[str]) -> int:
    """Run the built-in benchmark or the grid that the first argument names."""
    word = next((a for a in arguments if not a.startswith("-")), None)
    known = BENCHMARKS.get(word or "")
    if known is None:
        if word is not None and word == arguments[0]:
            _check_there(word)
        return _grid(arguments)
    parser = Parser(prog=f"selftaught benchmark {known.name}", description=known.help)
    known.add_options(parser)
    rest = list(arguments)
    rest.remove(known.name)
    return int(known.call(parser.parse_args(rest)) or 0)


def _check_there(word: str) -> None:
    """Refuse a word that is neither a file nor what a grid's file could be called."""
    if not Path(word).exists() and not Path(word).suffix:
        near = get_close_matches(word, BENCHMARKS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(BENCHMARKS)}; or give a grid's YAML file"
        raise UserError(f"no benchmark {word}: {hint}")


def _grid(arguments: Sequence[str]) -> int:
    built_in = "".join(f"\n  {name:18s} {command.help}" for name, command in BENCHMARKS.items())
    parser = Parser(
        prog="selftaught benchmark",
        description="A grid of runs described in a YAML file, or a built-in benchmark.",
        epilog=f"built in (selftaught benchmark NAME --help tells the options of each):{built_in}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", metavar="GRID.yaml | NAME", help="a grid's file, or one of those built in")
    add_grid_options(parser)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    from selftaught.benchmark import grid

    finished = grid.run(given.pop("what"), say=teller(), **given)
    if finished is not None:
        print("\n".join(finished.summary()))
    return 0


COMMAND = Command(
    "benchmark",
    "a grid of runs, the papers' claims, or another built-in benchmark",
    lambda sub: None,
    _call,
    order=50,
    reads_arguments=True,
)
