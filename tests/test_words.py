"""One sample is not "1 samples", wherever things are counted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from selftaught._words import plural, typed
from selftaught.data import open_source
from selftaught.engine.embedding import none_usable
from selftaught.errors import UserError
from selftaught.evaluation.result import ANY, extent
from selftaught.run.layout import new_folder


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (1, "unusable sample", "1 unusable sample"), (2, "unusable sample", "2 unusable samples"),
        (0, "step", "0 steps"), (2000, "class", "2,000 classes"), (3, "query", "3 queries"), (2, "array", "2 arrays"),
        (2, "box", "2 boxes"), (2, "sample of the test part", "2 samples of the test part"), (5, "series", "5 series"),
    ],
)  # fmt: skip
def test_things_are_counted_in_english(count: int, noun: str, said: str) -> None:
    assert plural(count, noun) == said


def test_sources_and_their_problems_are_counted(tiny_run) -> None:
    one = open_source({"x": np.zeros((1, 8, 8), np.uint8), "y": [0]}, split="all")
    assert re.search(r": 1 image, 1 channel, 1 class\b", one.describe())
    assert "its only sample can't be used, the first because: empty" in str(none_usable(one, [("a", "empty")]))
    two = open_source(np.zeros((2, 8, 8), np.uint8), split="all")
    assert "none of its 2 samples can be used; run: selftaught data check" in str(none_usable(two, []))
    assert re.search(r"\(1,?\d+ samples\): 12 steps in \d+ s$", tiny_run.summary()[0])
    tiny_run.layout.skipped.write_text("name,reason\na,empty\n")
    assert ", 1 unusable sample listed in " in tiny_run.summary()[0]
    tiny_run.layout.skipped.unlink()


def test_no_sentence_is_made_with_a_bare_s() -> None:
    """What counts things asks `plural`."""
    bare = re.compile(r'"s" (if|\*) |" ?\* "s"|\{.s. (if|\*) ')
    for path in (Path(__file__).parent.parent / "src/selftaught").rglob("*.py"):
        found = [line for line in path.read_text().splitlines() if bare.search(line)]
        assert not found, (path, found)


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("accuracy", (0, 1)), ("accuracy@10", (0, 1)), ("recall@1", (0, 1)), ("iou 3", (0, 1)), ("kappa", (-1, 1)),
        ("f1_last", (0, 1)), ("within 25 km", (0, 1)), ("accuracy: skin gap", ANY),
        ("psnr", ANY), ("loss_kept", ANY), ("mae", ANY),
    ],
)  # fmt: skip
def test_what_a_number_can_be_is_known_by_its_name(name: str, limits: tuple[float, float]) -> None:
    assert extent(name) == limits


def test_a_hint_can_be_pasted_whatever_the_folder_is_called(tmp_path: Path) -> None:
    assert typed("runs/a-b_1.2") == "runs/a-b_1.2"
    folder = tmp_path / "my run & yours"
    folder.mkdir()
    (folder / "config.yaml").write_text("")
    with pytest.raises(UserError) as error:
        new_folder(str(folder), "dcl", "photos")
    command = str(error.value).rpartition("go on with ")[2]
    assert shlex.split(command.partition("=")[2]) == [str(folder)]
