"""``benchmark medmnist``: the MedMNIST protocol, whole or in its small offline form."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Literal

from selftaught.catalog.rules import Count
from selftaught.cli._command import Command
from selftaught.cli.options import checked, say
from selftaught.errors import UserError

_LISTS: dict[str, type] = {
    "methods": str, "sets": str, "fractions": float, "encoders": str, "initialisations": str, "scorers": str,
}  # fmt: skip


def _several(kind: type) -> Callable[[str], list[Any]]:
    def parse(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",") if part]

    return parse


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", help="folder for results; the grid goes on there")
    checked(sub, "--workers", Count, "cells at a time on this machine")
    sub.add_argument("--cluster", help="slurm: every cell a job, through submitit")
    checked(sub, "--seeds", Count, "repetitions")
    sub.add_argument("--quick", action="store_true", help="the small form, offline, half an hour on 2 cores")
    sub.add_argument("--data", help="folder with MedMNIST's .npz files; default downloads them")
    checked(sub, "--size", Literal[28, 64, 128, 224], "side of the images")
    checked(sub, "--steps", Count, "steps in place of the recipes'")
    sub.add_argument("--probe", help="linear, linear-sgd, knn or finetune")
    sub.add_argument("--write", metavar="FILE", help="write the grid as YAML to edit, and do no more")
    for name, kind in _LISTS.items():
        sub.add_argument(f"--{name}", type=_several(kind), metavar="A,B", help=f"{name}, in place of all")


def _call(options: argparse.Namespace) -> int:
    from selftaught.benchmark import medmnist

    given = {name: value for name, value in vars(options).items() if value is not None and value is not False}
    if given.get("quick") and "size" in given:
        raise UserError("--size goes with MedMNIST's files; the quick benchmark's images have one size")
    finished = medmnist.run(say=say(), **given)
    if finished is not None:
        print("\n".join(finished.summary()))
    return 0


COMMAND = Command("medmnist", "the MedMNIST benchmark of self-supervised methods", _options, _call, 20)
