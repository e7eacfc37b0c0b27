"""Messages name options as whoever reads them gives them: on the command line, or in Python."""

from __future__ import annotations

from pathlib import Path

import pytest

import selftaught
from selftaught.cli import main
from selftaught.errors import UserError, for_caller


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("use --batch-size 20 or less", "use batch_size=20 or less"),
        ("give --epochs or --steps", "give epochs or steps"),
        ("--by x:1: no such rule", "by=x:1: no such rule"),
        ("--out /tmp/a b: not empty", "out /tmp/a b: not empty"),
        ("--clip -1; it may be: 0 or more", "clip=-1; it may be: 0 or more"),
        ("name it with --data SOURCE", "name it with data=SOURCE"),
        ("take --data 'digits?wrong_labels=0.2' (7)", "take data='digits?wrong_labels=0.2' (7)"),
        ("add --no-hypercolumn and --feat-weight 0", "add hypercolumn=False and feat_weight=0"),
        ("--protocol knn: needs labels", "protocols=knn: needs labels"),
        ("go on with: selftaught train --resume runs/a (or use what there is, with --partial)",
         "go on with: selftaught train --resume runs/a (or use what there is, with partial)"),
        ("run: pip install --no-deps lpips", "run: pip install --no-deps lpips"),
        ("a dash -- and a-b--c stay", "a dash -- and a-b--c stay"),
    ],
)  # fmt: skip
def test_options_are_named_as_arguments(written: str, said: str) -> None:
    assert for_caller(written) == str(UserError(written)) == said


def test_the_same_fault_from_python_and_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"batch_size": 1, "steps": 1, "out": str(tmp_path / "run")}
    with pytest.raises(UserError) as error:
        selftaught.train("simclr", "digits?n=60", **options)
    assert str(error.value).startswith("batch_size=1: an embedding is learnt by comparison")
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["train", "simclr", "--data", "digits?n=60", *arguments]) == 2
    assert "selftaught: --batch-size 1: an embedding is learnt by comparison" in capsys.readouterr().err
    assert str(error.value).startswith("batch_size=1"), "and Python is spoken to as Python again"
