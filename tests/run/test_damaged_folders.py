"""Every file of a run's folder, damaged in every way: a line that names it, or the same result; never a traceback.

Files that new outputs and stages write join by themselves: the folder is listed, not known.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import selftaught
from selftaught import methods
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.run import evaluations, outputs, reporting
from selftaught.run.applying import weights_digest
from selftaught.run.layout import Layout
from tests.conftest import TINY
from tests.harness import DAMAGES, TINY_RUNS, Killed, content, damaged, killing, train_tiny


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
            folder = damaged(whole, tmp_path / "run", name, damage)
            found, said = answer(ask, folder)
            if said:  # what a changed configuration says is about what it says now
                assert Path(name).name in said or "not finished" in said or name == "config.yaml", (name, what, said)
                continue
            if what == "the report" and name in ("evaluation.json", "metrics.csv") and damage in ("gone", "empty"):
                continue  # nothing was measured, then
            survived += 1
            assert found == expected[what], (name, what)
    assert survived >= len(names)


# ---- every kind of output --------------------------------------------------------------------------------------------
def test_every_kind_of_output_has_a_tiny_run_that_is_attacked() -> None:
    """A new kind is attacked by the two tests below, and counted by benchmarks/robustness, as soon as it has one."""
    given = {methods.get(tiny.slug).output.replace("-", " ") for tiny in TINY_RUNS.values()}
    assert given == set(outputs.kinds())


KINDS = {methods.get(tiny.slug).output: kind for kind, tiny in reversed(TINY_RUNS.items())}
"""One tiny run of every kind of output."""


MOMENTS: dict[str, int] = {}
"""At how many moments a tiny run can be killed."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """The folder of a tiny run, and where its data lie; trained once."""
    place = tmp_path_factory.mktemp("tiny")

    def find(kind: str) -> tuple[Path, Path]:
        if kind not in MOMENTS:
            if TINY_RUNS[kind].begins_with:
                find(TINY_RUNS[kind].begins_with)
            with killing(None) as passed:
                train_tiny(kind, place / kind, place)
            MOMENTS[kind] = passed[0]
        return place / kind, place

    return find


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values())
def test_files_of_every_kind_of_run_damaged(kind: str, made: Any, tmp_path: Path) -> None:
    whole, _ = made(kind)
    expected = weights_of(selftaught.load(whole).method)
    for name in (str(path.relative_to(whole)) for path in sorted(whole.rglob("*")) if path.is_file()):
        for damage in ("gone", "half", "noise", "a list"):
            found, said = answer(
                lambda folder: weights_of(selftaught.load(folder).method), damaged(whole, tmp_path / "r", name, damage)
            )
            assert said or found == expected, (name, damage)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TINY_RUNS)
def test_training_of_every_kind_killed_and_resumed(kind: str, made: Any, tmp_path: Path) -> None:
    """In its middle; benchmarks/robustness counts every moment. A stage that is new has moments of its own."""
    whole, place = made(kind)
    with pytest.raises(Killed), killing(MOMENTS[kind] // 2):
        train_tiny(kind, tmp_path / "cut", place)
    train_tiny(kind, tmp_path / "cut", place)
    one, two = content(whole), content(tmp_path / "cut")
    assert one.keys() == two.keys()
    weights = [name for name in one if name.endswith(".safetensors")]
    assert weights
    assert all(one[name] == two[name] for name in weights)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values())
def test_loader_processes_change_nothing_in_any_kind(kind: str, made: Any, tmp_path: Path) -> None:
    whole, place = made(kind)
    run = train_tiny(kind, tmp_path / "run", place, workers=2)
    assert run.settings.workers == 2
    assert (run.path / "encoder.safetensors").read_bytes() == (whole / "encoder.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values())
def test_apply_of_every_kind_killed_and_given_again(kind: str, made: Any, tmp_path: Path) -> None:
    run, place = made(kind)
    tiny = TINY_RUNS[kind]

    def apply(folder: Path) -> dict[str, bytes]:
        selftaught.load(run).apply(tiny.input(place), folder / tiny.outs[0], workers=0, **tiny.more)
        return {name: data for name, data in content(folder).items() if not name.endswith((".done", "work.json"))}

    (tmp_path / "whole").mkdir()
    with killing(None) as passed:
        expected = apply(tmp_path / "whole")
    for moment in sorted({0, 1, passed[0] // 2, passed[0] // 2 + 1, passed[0] - 2, passed[0] - 1}):
        folder = tmp_path / f"cut{moment}"
        folder.mkdir()
        with pytest.raises(Killed), killing(moment):
            apply(folder)
        assert apply(folder) == expected, moment
