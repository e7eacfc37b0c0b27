"""``demo``: the main job on the built-in photographs."""

from __future__ import annotations

import argparse

from selftaught.catalog.rules import Count
from selftaught.cli._command import Command
from selftaught.cli.options import checked, say


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", help="folder of the run")
    checked(sub, "--steps", Count, "shorter or longer than the default")


def _call(options: argparse.Namespace) -> None:
    from selftaught.benchmark import demo

    run = demo.run(out=options.out, steps=options.steps, say=say())
    print("\n".join(run.summary()))


COMMAND = Command(
    "demo", "the main job on the built-in photographs: train, evaluate, report", _options, _call, order=80
)
