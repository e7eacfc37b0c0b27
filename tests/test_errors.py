"""Messages name options as whoever reads them gives them: on the command line, or in Python."""

from __future__ import annotations

from pathlib import Path

import pytest

import selftaught
from selftaught import errors
from selftaught.cli import main
from selftaught.errors import UserError, first_line, for_caller


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("use --batch-size 20 or less", "use batch_size=20 or less"),
        ("give --epochs or --steps", "give epochs or steps"),
        ("--by x:1: no such rule", 'by="x:1": no such rule'),
        ("--out '/tmp/a b': not empty", "out='/tmp/a b': not empty"),
        ("or take --strategy ddp", 'or take strategy="ddp"'),
        ("--strategy fsdp2 spreads a network; leave out --keep-weights last.",
         'strategy="fsdp2" spreads a network; leave out keep_weights="last".'),
        ("--patience watches a loss", "patience watches a loss"),
        ("give --init open_clip:ViT-B-16/openai, or --intrinsics fov=70",
         'give init="open_clip:ViT-B-16/openai", or intrinsics="fov=70"'),
        ("--clip -1; it may be: 0 or more", "clip=-1; it may be: 0 or more"),
        ("name it with --data SOURCE", "name it with data=SOURCE"),
        ("take --data 'digits?wrong_labels=0.2' (7)", "take data='digits?wrong_labels=0.2' (7)"),
        ("add --no-hypercolumn and --feat-weight 0", "add hypercolumn=False and feat_weight=0"),
        ("--protocol knn: needs labels", 'protocols="knn": needs labels'),
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


def test_a_word_after_an_option_is_a_value_or_goes_on_with_the_sentence() -> None:
    """In every line of the package: a verb that is taken for a value would read ``patience="watches" a loss``."""
    texts = [path.read_text(encoding="utf-8") for path in Path(selftaught.__file__).parent.rglob("*.py")]
    package, seen = "".join(texts), 0
    for line in package.splitlines():
        for found in errors._OPTION.finditer(errors._COMMANDS.sub(";", line)) if "--" in line else ():
            word = found["word"]
            assert not word or not word.isalpha() or f'"{word}"' in package, f"{word!r} is no value: {line.strip()}"
            seen += bool(word)
    assert seen > 30


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("form=libauc goes with host=batch; the queue", "--form libauc goes with --host batch; the queue"),
        ("image_size=30 isn't a multiple of patch=16", "--image-size 30 isn't a multiple of --patch 16"),
        ("encoder=hf:x: not at hand", "--encoder hf:x: not at hand"),
        ("use pretrained=False or a ResNet", "use --no-pretrained or a ResNet"),
        ("backend='x': choose torch", "backend='x': choose torch"),  # no option of this command
        ("take split=train, or 'a/?patch=3&encoder=4'", "take split=train, or 'a/?patch=3&encoder=4'"),
    ],
)
def test_arguments_are_named_as_options_of_the_command(written: str, said: str) -> None:
    options = ["--form", "--host", "--image-size", "--patch", "--encoder", "--pretrained", "--no-pretrained"]
    with errors.command_line():
        errors.has_options(options)
        assert str(UserError(written)) == said
    assert str(UserError(written)) == written, "and Python is spoken to as Python again"


def test_a_fault_of_a_network_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", "digits?n=60", "--image-size", "30", "--patch", "16", "--steps", "1", "--batch-size", "8"]
    assert main(["train", "mae", *arguments, "--dry-run"]) == 2
    assert "selftaught: --image-size 30 isn't a multiple of --patch 16" in capsys.readouterr().err


def test_errors_of_other_libraries_are_told_in_short_even_where_they_say_nothing() -> None:
    assert first_line(OSError("  no such host. \nand much more")) == "no such host"
    assert first_line(RuntimeError("x" * 300), 80) == "x" * 80
    assert first_line(MemoryError()) == "MemoryError"
    assert first_line(ValueError("\n")) == "ValueError"
