"""Every file of a run's folder, damaged in every way: a line that names it, or the same result; never a traceback.

Files that new outputs and stages write join by themselves: the folder is listed, not known.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import selftaught
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.run import evaluations, reporting
from selftaught.run.applying import weights_digest
from selftaught.run.layout import Layout
from tests.conftest import TINY


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) * 2 // 3] ^= 0x40
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes] | str] = {
    "gone": "gone",
    "a folder": "folder",
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "noise": lambda content: random.Random(0).randbytes(len(content)),
    "one bit": flipped,
    "a list": lambda content: b"[]",
    "null": lambda content: b"null",
    "a word": lambda content: b"hello\n",
    "not UTF-8": lambda content: b"\xff\xfe\xe9\n",
    "a tail": lambda content: content + b"more",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two optimiser steps, evaluated and reported; the cheapest that has every file."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    options = TINY | {"steps": 2, "batch_size": 8, "augment": "grey", "device": "cpu"}
    run = selftaught.train("simclr", "digits", out=str(folder), **options)
    run.evaluate(protocols=["knn"], baselines=False)
    run.report()
    return folder


def weights_of(method: Method) -> str:
    return weights_digest(method)


def drawn(folder: Path) -> Any:
    """What a report is drawn from, without the drawing."""
    layout = Layout(folder)
    found = reporting.sections(layout, evaluations.leading(layout), evaluations.all_evaluations(layout))
    evaluations.leading(layout).features()
    return found.get("protocols")


def damaged(whole: Path, place: Path, name: str, damage: Callable[[bytes], bytes] | str) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    path = place / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif callable(damage):
        path.write_bytes(damage(content))
    return place


def answer(ask: Callable[[Path], Any], folder: Path) -> tuple[Any, str]:
    """The result, or the line that says why there is none."""
    try:
        return ask(folder), ""
    except UserError as error:
        return None, str(error)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_or_changes_nothing(damage: str, whole: Path, tmp_path: Path) -> None:
    asks = {
        "the model": lambda folder: weights_of(selftaught.load(folder).method),
        "the report": drawn,
        "the output": lambda folder: type(selftaught.load(folder).output).__name__,
        "resuming": lambda folder: weights_of(
            selftaught.train("simclr", resume=str(folder), quiet=True, workers=0).method
        ),
    }
    expected = {what: ask(whole) for what, ask in asks.items()}
    names = [str(path.relative_to(whole)) for path in sorted(whole.rglob("*")) if path.is_file()]
    assert {"config.yaml", "encoder.safetensors", "state.json", "metrics.csv"} <= set(names)
    survived = 0
    for name in names:
        for what, ask in asks.items():
            if what == "resuming" and Path(name).suffix in (".html", ".csv", ".npz"):
                continue  # nothing that it reads
            folder = damaged(whole, tmp_path / "run", name, DAMAGES[damage])
            found, said = answer(ask, folder)
            if said:  # what a changed configuration says is about what it says now
                assert Path(name).name in said or "not finished" in said or name == "config.yaml", (name, what, said)
                continue
            if what == "the report" and name in ("evaluation.json", "metrics.csv") and damage in ("gone", "empty"):
                continue  # nothing was measured, then
            survived += 1
            assert found == expected[what], (name, what)
    assert survived >= len(names)
