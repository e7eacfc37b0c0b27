"""``search``: pictures found by words."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from selftaught.catalog.rules import Count, Workers
from selftaught.cli._command import Command
from selftaught.cli.options import checked


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", help="folder of the run")
    sub.add_argument("input", help="source of pictures; its index in the run's folder grows with it")
    sub.add_argument("query", help="what to look for, such as 'a red car at night'")
    checked(sub, "--count", Count, "how many pictures (default 10)", default=10)
    checked(sub, "--workers", Workers, "loader processes; -1 chooses", default=-1)


def _call(options: argparse.Namespace) -> None:
    import selftaught

    run = selftaught.load(options.run)
    told: dict[str, Any] = {"count": options.count, "workers": options.workers}
    for one in run.search(options.input, options.query, say=lambda line: print(line, file=sys.stderr), **told):
        print(f"{one.score:.3f}  {one.name}")


COMMAND = Command("search", "pictures that a text fits, by a run that knows words (clip)", _options, _call, order=32)
