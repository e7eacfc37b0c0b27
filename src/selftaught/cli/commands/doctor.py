"""``doctor``: this machine."""

from __future__ import annotations

import argparse

from selftaught.cli._command import Command


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", help="a source to measure reading of; default photos")


def _call(options: argparse.Namespace) -> None:
    from selftaught import doctor

    print(doctor.examine(options.data or "photos"))


COMMAND = Command(
    "doctor", "this machine: cores, precision, measured throughput, what limits it", _options, _call, order=70
)
