"""``benchmark survey``: a representative of every branch, one encoder, one budget, one table."""

from __future__ import annotations

import argparse

from selftaught.catalog.rules import Count, Positive
from selftaught.cli._command import Command
from selftaught.cli.options import checked, names, say


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", help="folder for results; the survey goes on there")
    checked(sub, "--workers", Count, "cells at a time on this machine")
    sub.add_argument("--data", help="source with labels, for the judging; default a part of Fashion-MNIST")
    sub.add_argument("--methods", type=names, metavar="A,B", help="in place of the branches' representatives")
    sub.add_argument("--encoder", help="the one encoder of all methods; default a tiny ViT, with --full ViT-S/16")
    checked(sub, "--steps", Count, "the budget: steps of each method")
    checked(sub, "--seconds", Positive, "the budget: seconds of training for each method, in place of steps")
    checked(sub, "--seeds", Count, "repetitions; default 3")
    sub.add_argument("--full", action="store_true", help="224 pixels and the methods' first presets, for a GPU")


def _call(options: argparse.Namespace) -> int:
    from selftaught.benchmark import ssl_vit_survey

    given = {name: value for name, value in vars(options).items() if value is not None and value is not False}
    finished = ssl_vit_survey.run(say=say(), **given)
    print("\n".join(finished.summary()))
    return 0


COMMAND = Command(
    "survey", "a method of every branch with one encoder and one budget, in one table", _options, _call, 15
)
