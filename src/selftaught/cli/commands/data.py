"""``data``: the built-in data sets, and what a source of one's own holds."""

from __future__ import annotations

import argparse

from selftaught.cli._command import Command
from selftaught.errors import UserError


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("action", choices=["list", "fetch", "check"])
    sub.add_argument("source", nargs="?", help="a source (check) or the name of a built-in one (fetch)")
    sub.add_argument("--modality", help="kind of samples (image, series, clip, volume ...); default found out")


def _call(options: argparse.Namespace) -> int:
    from selftaught import data

    if options.action == "list":
        for row in data.list_embedded():
            state = "here" if row.present else f"missing: install {row.package}"
            print(f"{row.name:14s} {row.modality:7s} {row.what}  [{state}]")
        return 0
    if options.source is None:
        raise UserError(f"selftaught data {options.action} SOURCE: which source?")
    if options.action == "fetch":
        print(data.fetch(options.source))
        return 0
    report = data.check(options.source, modality=options.modality)
    print(report)
    return 1 if report.problems or report.mend else 0


COMMAND = Command("data", "built-in data sets, here or missing; check a source of your own", _options, _call, order=60)
