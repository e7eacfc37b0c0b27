"""``report``: the page of a run, or of several side by side."""

from __future__ import annotations

import argparse

from selftaught.cli._command import Command
from selftaught.cli.options import say


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("runs", nargs="+", metavar="run", help="folders of runs")
    sub.add_argument("--out", help="file to write; default RUN/report.html, or comparison.html")


def _call(options: argparse.Namespace) -> None:
    import selftaught

    if len(options.runs) == 1 and not options.out:
        print(selftaught.load(options.runs[0]).report(say=say()))
        return
    print(selftaught.compare(options.runs, options.out or "comparison.html", say=say()))


COMMAND = Command("report", "the HTML page of a run, or several side by side", _options, _call, order=45)
