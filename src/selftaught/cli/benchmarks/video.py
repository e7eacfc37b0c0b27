"""``benchmark video``: six pretexts on videos along five factors, whole or in its small offline form."""

from __future__ import annotations

import argparse

from selftaught.catalog.rules import Count
from selftaught.cli._command import Command
from selftaught.cli.options import checked, say


def _several(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", help="folder for results; what is done there is not done again")
    sub.add_argument("--quick", action="store_true", help="the small form on generated motion, half an hour on 2 cores")
    sub.add_argument("--data", help="labelled clips to learn from")
    sub.add_argument("--source", help="other clips to learn from, for the shift")
    sub.add_argument("--target", help="labelled clips to judge on; default those of --data")
    for name, what in (("methods", "pretexts"), ("encoders", "networks"), ("factors", "factors")):
        sub.add_argument(f"--{name}", type=_several, metavar="A,B", help=f"{what}, in place of all")
    checked(sub, "--seeds", Count, "repetitions (default 1)")
    checked(sub, "--steps", Count, "steps of each run, in place of the recipes'")
    sub.add_argument("--dry-run", action="store_true", help="open the data, show what would be trained; train nothing")


def _call(options: argparse.Namespace) -> int:
    from selftaught.benchmark import video_ssl

    given = {name: value for name, value in vars(options).items() if value is not None and value is not False}
    finished = video_ssl.run(say=say(), **given)
    if not options.dry_run:
        print("\n".join(finished.summary()))
    return 0


COMMAND = Command("video", "six pretexts on videos: size, difficulty, shift, noise, similarity", _options, _call, 30)
