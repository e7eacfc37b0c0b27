"""``benchmark claims``: the experiment that each paper is about, in the small."""

from __future__ import annotations

import argparse

from selftaught.catalog.rules import Count
from selftaught.cli._command import Command
from selftaught.cli.options import checked, say


def _options(sub: argparse.ArgumentParser) -> None:
    checked(sub, "--seeds", Count, "repetitions; default the claim's own")
    sub.add_argument("--method", help="one method; default all that are built")
    sub.add_argument("--full", action="store_true", help="the longer form")
    sub.add_argument("--add", action="store_true", help="keep the stored seeds; measure those that --seeds has more")
    sub.add_argument("--out", help="folder for results")


def _call(options: argparse.Namespace) -> None:
    from selftaught.benchmark import claims

    given = {name: value for name in ("seeds", "full", "add", "out") if (value := getattr(options, name))}
    claims.run(options.method, say=say(), **given)


COMMAND = Command("claims", "each paper's claim in the small: method and baselines side by side", _options, _call, 10)
