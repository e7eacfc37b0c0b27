"""``benchmark projection-study``: projectors of all depths and widths, layer by layer."""

from __future__ import annotations

import argparse

from selftaught.catalog.rules import Count
from selftaught.cli._command import Command
from selftaught.cli.options import checked, say


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", help="folder for results; goes on there")
    checked(sub, "--steps", Count, "steps of each run, in place of the study's own")


def _call(options: argparse.Namespace) -> None:
    from selftaught.benchmark import projection_study

    given = {name: value for name in ("out", "steps") if (value := getattr(options, name)) is not None}
    projection_study.run(say=say(), **given)


COMMAND = Command("projection-study", "which projector, and which of its layers to keep", _options, _call)
