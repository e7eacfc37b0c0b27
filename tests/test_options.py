"""Options and settings: their type, range, form and choices hold in Python and on the command line alike."""

from __future__ import annotations

import errno
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

import selftaught
from selftaught import catalog, methods
from selftaught.catalog.rules import (
    Count,
    Form,
    NonNegative,
    Positive,
    PositiveShare,
    Range,
    Rule,
    Share,
    Widths,
    WidthsOrNone,
    check_options,
)  # fmt: skip
from selftaught.cli import main
from selftaught.cli._main import _out_of_memory
from selftaught.cli.commands.train import parse_train
from selftaught.engine.trainer import make_trainer
from selftaught.errors import UserError
from selftaught.networks.series import SERIES_ENCODERS
from selftaught.run import configuration
from selftaught.run_settings import Settings

GOOD: list[tuple[Any, Any, Any]] = [
    (float, 1, 1.0), (float, np.float32(0.5), 0.5), (Positive, 1e-9, 1e-9), (Share, 0, 0.0), (Share, 1, 1.0),
    (int, np.int64(3), 3), (Count, 1, 1), (Count | None, None, None), (Positive | None, 2, 2.0),
    (bool, True, True), (bool, np.bool_(False), False), (str, "x", "x"), (str | None, Path("a"), "a"),
    (Widths, "2048-128", "2048-128"), (Widths, 64, "64"), (WidthsOrNone, "none", "none"),
    (Literal["a", "b"], "b", "b"), (Literal[1, 2], 2, 2), (list[str] | None, ("a", "b"), ["a", "b"]),
    (Annotated[float, Range(0, below=1)], 0, 0.0), (Annotated[str, Form("a+", "some a")], "aa", "aa"),
    (dict[str, str], {"a": "b"}, {"a": "b"}), (tuple[int, ...], (1, 2), (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value", "expected"), GOOD)
def test_what_fits_comes_back_in_its_plain_type(hint: Any, value: Any, expected: Any) -> None:
    found = Rule.of(hint).check(value)
    assert found == expected
    assert type(found) is type(expected)


BAD: list[tuple[Any, Any, str]] = [
    (float, "abc", "a number"), (float, "1", "a number"), (float, True, "a number"), (float, float("nan"), "a number"),
    (float, float("inf"), "a number"), (float, None, "a number"), (Positive, 0, "a number above 0"),
    (Positive | None, -1, "a number above 0 or None"), (NonNegative, -1e-9, "a number of at least 0"),
    (Share, 1.01, "a number from 0 to 1"), (PositiveShare, 0, "a number above 0 and at most 1"),
    (Annotated[float, Range(0, below=1)], 1, "a number from 0 on and below 1"),
    (int, 1.0, "a whole number"), (int, True, "a whole number"), (int, "2", "a whole number"), (Count, 0, "above 0"),
    (bool, 1, "True or False"), (bool, "yes", "True or False"), (str, 3, "text"), (str, None, "text"),
    (Widths, "2048-", "widths such as 2048-128"), (Widths, "0-8", "widths"), (Widths, True, "widths"),
    (Widths, "none", "widths"), (Literal["a", "b"], "c", "a, b"), (Literal[1, 2], True, "1, 2"),
    (Literal[1, 2, 3], 4, "1, 2, 3"), (list[str], "a", "a list of names"), (dict[str, str], [], "a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value", "words"), BAD)
def test_what_does_not_fit_is_refused_with_what_would(hint: Any, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rule.of(hint).check(value)


def test_texts_of_the_command_line_become_values() -> None:
    assert Rule.of(Literal[1, 2]).parse("2") == 2
    assert Rule.of(Positive | None).parse("1e-3") == 1e-3
    assert Rule.of(list[str] | None).parse("a,b") == ["a", "b"]
    assert Rule.of(Widths).parse("64") == "64"
    for hint, text, words in (
        (Positive | None, "-1", "a number above 0$"),
        (int, "2.5", "whole"),
        (Widths, "a", "widths"),
    ):
        with pytest.raises(ValueError, match=words):
            Rule.of(hint).parse(text)


@dataclass
class Base:
    lr: Positive = 0.1
    width: Widths = "8"

    def __post_init__(self) -> None:
        check_options(self)


@dataclass
class Derived(Base):
    lr: float = 1.0
    width: str | None = None  # type: ignore[assignment]


def test_an_override_keeps_the_limits_that_it_does_not_say_again() -> None:
    assert (Derived().lr, Derived().width) == (1.0, None)
    with pytest.raises(UserError, match="lr=-1; it may be: a number above 0"):
        Derived(lr=-1)
    with pytest.raises(UserError, match="width='x'; it may be: widths such as 2048-128 or None"):
        Derived(width="x")


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("dcl", {"lr": "abc"}, "a number of at least 0"),
    ("dcl", {"temperature": -1}, "a number above 0"),
    ("simclr", {"crop": 2}, "a number above 0 and at most 1"),
    ("simclr", {"crop": 0}, "a number above 0 and at most 1"),
    ("dcl", {"projector": "2048,128"}, "widths such as 2048-128"),
    ("byol", {"target_decay": 1.2}, "a number from 0 to 1"),
    ("sla", {"milestones": "50-75"}, "shares of the run"),
    ("amcl", {"transforms": "cde"}, "a .crop. and any of"),
    ("simclr", {"stem": "big"}, "auto, small, standard"),
    ("dcl", {"momentum": 1}, "from 0 on and below 1"),
    ("dcl", {"lr": math.nan}, "a number of at least 0"),
    ("dcl", {"warmup_epochs": math.nan}, "a number"),
    ("dcl", {"weight_decay": -1}, "a number of at least 0"),
    ("dcl", {"projector": "a-b"}, "widths such as 2048-128"),
    ("supervised", {"decay_every": math.nan}, "a number"),
    ("c-bsn", {"patch": 0}, "a whole number"),
    ("swav", {"iters": -1}, "a whole number of at least 0"),
]


@pytest.mark.parametrize(("slug", "options", "words"), REFUSED)
def test_a_method_refuses_by_name(
    slug: str, options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=f"^{name}={value!r}; it may be: .*{words}"):
        methods.get(slug)(classes=2, **options)
    assert main(["train", slug, "--data", "digits", f"--{name.replace('_', '-')}={value}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"selftaught: --{name.replace('_', '-')} {value}; it may be: ")
    assert words.replace(".crop.", "(crop)") in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0), ("ema", 1.5), ("max_skip", -1), ("clip", -1), ("accumulate", 0), ("steps", 0),
        ("epochs", -2),
        ("seed", -1), ("workers", -2), ("devices", 0), ("knn_every", 2), ("precision", "64"), ("batch_size", "many"),
        ("epochs", math.nan), ("epochs", math.inf), ("clip", math.nan), ("seed", 2**32), ("nodes", 0),
        ("log_every", 0), ("max_skip", math.nan), ("max_skip", 7), ("checkpoint_minutes", -1), ("knn_every", -0.5),
        ("knn_every", math.nan), ("workers", 5_000_000),
    ],
)  # fmt: skip
def test_a_setting_is_refused_by_name(name: str, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import selftaught

    with pytest.raises(UserError, match=f"^{name}={value!r}; it may be: "):
        Settings(**{name: value})
    with pytest.raises(UserError, match=f"^{name}={value!r}; it may be: "):
        selftaught.train("dcl", "digits", **{name: value})
    assert main(["train", "dcl", "--data", "digits", f"--{name.replace('_', '-')}={value}"]) == 2
    assert capsys.readouterr().err.startswith(f"selftaught: --{name.replace('_', '-')} {value}; it may be: ")


def test_the_config_of_another_method_is_refused() -> None:
    other = methods.get("byol").config_class()
    with pytest.raises(
        UserError, match=r"config=selftaught\.methods\.byol\.Config; it may be: selftaught\.methods\.dcl\.Config"
    ):
        methods.DCL(config=other)


MISTAKES = [
    (["train", "dcl", "--data", "x", "--tempratur", "0.1"], "no option --tempratur: did you mean --temperature?"),
    (["train", "dcl", "--lr", "fast"], "--lr fast; it may be: a number"),
    (["train", "dcl", "--batch-size", "0"], "--batch-size 0; it may be: a whole number above 0"),
    (["train", "simclrr", "--data", "x"], "no method 'simclrr'; nearest: simclr"),
    (["train", "dcl", "--data", "x", "--workres", "2"], "no option --workres: did you mean --workers?"),
    (["train", "dcl", "--data", "x", "--workers", "-7"], "--workers -7; it may be: a whole number"),
    (["apply", "run", "x", "--out", "y", "--tile", "-5"], "--tile -5; it may be: a whole number of at least 0"),
    (["curate", "x", "--keep", "0.5", "--iterations", "0"], "--iterations 0; it may be: a whole number above 0"),
    (["apply", "run", "x", "--ouT", "y"], "no option --ouT: did you mean --out?"),
    (["evaluate", "run", "--protocl", "knn"], "no option --protocl: did you mean --protocol?"),
    (["train", "dcl", "--zzzzzz"], "no option --zzzzzz (see selftaught train dcl --help)"),
    (["methods", "--jbo", "restore"], "no option --jbo: did you mean --job?"),
    (["benchmark", "claim", "--method", "dcl"], "no benchmark claim: did you mean claims?"),
    (["benchmark", "zzzzz"], "no benchmark zzzzz: there are claims"),
    (["trian", "dcl"], "no command trian: did you mean train?"),
    (["evaluate", "run", "--head", "linaer"], "--head linaer: did you mean linear?"),
    (["evaluate", "run", "--head", "zzz"], "--head zzz; it may be: linear, upernet"),
]


def test_mistakes_are_answered_without_torch() -> None:
    code = (
        "import sys, json, io, contextlib\n"
        "from selftaught.cli import main\n"
        "for arguments, said in json.loads(sys.argv[1]):\n"
        "    err = io.StringIO()\n"
        "    with contextlib.redirect_stderr(err): code = main(arguments)\n"
        "    text = err.getvalue()\n"
        "    assert code == 2 and said in text and text.count('\\n') == 1, (arguments, text)\n"
        "heavy = {'torch', 'numpy', 'lightning', 'timm', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    import json

    done = subprocess.run([sys.executable, "-c", code, json.dumps(MISTAKES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _help(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments, "--help"])
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_shows_the_values_that_a_run_here_would_use(capsys: pytest.CaptureFixture[str]) -> None:
    said = _help(capsys, "dcl", "--device", "cpu")
    laptop = _presets("dcl")["laptop"]
    assert f"(a whole number above 0; default {laptop['batch_size']})" in said
    assert f"Temperature tau. (a number above 0; default {laptop['temperature']})" in said
    assert "--stem {auto,small,standard}" in said
    assert "(default )" not in said
    assert "default None" not in said
    assert "(defaults of preset laptop)" in said
    said = _help(capsys, "dcl", "--preset", "imagenet")
    assert f"default {_presets('dcl')['imagenet']['epochs']})" in said
    assert "(defaults of preset imagenet)" in said
    series = _help(capsys, "frame-projections", "--device", "cpu")
    assert "(defaults of preset laptop" in series


def _presets(slug: str) -> dict[str, dict[str, Any]]:
    from selftaught import catalog

    return catalog.presets(slug)


@pytest.mark.parametrize("slug", ["byol", "supervised", "vicreg", "dcl", "amcl"])
def test_series_get_an_encoder_of_series_unless_another_is_asked_for(slug: str) -> None:
    kind = methods.get(slug)
    _, config = configuration.resolve(kind, "series", {"device": "cpu"})
    assert config.encoder in SERIES_ENCODERS
    if "image" in kind.modalities:
        _, config = configuration.resolve(kind, "image", {"device": "cpu"})
        assert config.encoder not in SERIES_ENCODERS
        _, config = configuration.resolve(kind, "series", {"device": "cpu", "encoder": "resnet18"})
        assert config.encoder == "resnet18", "what was asked for is refused when it is built, not changed"


def test_every_train_command_shows_its_help_and_no_option_has_two_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    own = {option.name for option in catalog.settings()}
    for card in catalog.all_cards():
        if catalog.method_file(card.slug).parent.name != "methods":
            continue
        twice = own & {option.name for option in catalog.options(card.slug)}
        assert twice <= {"validation", "patience"}, card.slug  # where a method has its own it is that one, for the same
        with pytest.raises(SystemExit) as ended:
            parse_train(card.slug, ["--help"])
        assert ended.value.code == 0
        assert f"options of {card.slug}" in capsys.readouterr().out


def test_memory_that_there_is_not_is_told_from_other_errors() -> None:
    for ask in (lambda: np.empty(2**58), lambda: torch.empty(2**58), lambda: bytearray(2**60)):
        with pytest.raises((MemoryError, RuntimeError)) as error:
            ask()
        assert _out_of_memory(error.value)
    assert _out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not _out_of_memory(OSError(errno.ENOENT, "No such file or directory"))
    assert not _out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize(
    ("given", "words"),
    [({"strategy": "fsdp", "device": "cpu"}, "over GPUs"), ({"cache": True}, "images and clips; series are read")],
)
def test_what_a_run_can_not_honour_is_refused(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        selftaught.train(
            "simclr", "watch" if "cache" in given else "digits", out=str(tmp_path / "run"), steps=1, quiet=True, **given
        )
    assert not (tmp_path / "run").exists()


def test_a_configuration_is_read_as_it_is_meant_or_refused_in_a_line(tmp_path: Path) -> None:
    import yaml

    right = {"steps": 1, "data": "digits?n=40", "batch_size": 8}
    assert yaml.safe_load("options: {lr: 4e-3}") == {"options": {"lr": "4e-3"}}
    config = {"settings": right | {"clip": "1e0"}, "options": {"lr": "4e-3"}}
    settings, options = configuration.resolve(methods.SimCLR, "image", {}, config)
    assert (settings.clip, options.lr) == (1.0, 0.004)
    for parts, words in (
        ({"settings": right | {"streams": "x"}}, "streams is str 'x'"),
        ({"settings": [1]}, "settings is list"),
        ({"settings": right | {"data": None}}, "data is None; name a source there, or give data"),
        ({"settings": right | {"cache": "no"}}, "True or False"),
        ({"settings": right | {"seed": 2**31}}, "from 0 to 2147483647"),
    ):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"method": "simclr", **parts}))
        with pytest.raises(UserError, match=words):
            selftaught.rehearse("simclr", config=tmp_path / "mine.yaml")
    with pytest.raises(UserError, match="it may be auto"):
        make_trainer(Settings(strategy="x"), tmp_path, [], [])


def test_what_a_queue_an_encoder_and_a_source_can_not_be() -> None:
    for options, words in (
        ({"queue": 8, "batch_size": 16}, "a batch of 16 would not fit"),
        ({"encoder": "resnet18.nosuchtag"}, "no weights of that tag; there are resnet18"),
        ({"data": "torchvision:VisionDataset"}, "no data set 'VisionDataset'"),
        ({"data": "~nouser/x"}, "~nouser/x"),
    ):
        given = {"data": "digits?n=40", "steps": 1, "image_size": 16, "augment": "grey", "encoder": "cnn-small"}
        given |= options
        with pytest.raises(UserError, match=words):
            selftaught.rehearse("moco-v2", given.pop("data"), **given)


def test_a_switch_takes_on_and_off_as_its_card_shows_them() -> None:
    told = ["--use-dmd", "off", "--compile=on", "--recompute", "--no-cache", "--use-vlm", "true"]
    found = parse_train("np-edit", told)
    assert [found[k] for k in ("use_dmd", "compile", "recompute", "cache", "use_vlm")] == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert parse_train("dcl", ["--data", "off", "--compile"])["data"] == "off", "a source may be called so"
    with pytest.raises(UserError, match=r"unrecognized arguments: maybe \(see"):
        parse_train("np-edit", ["--use-dmd", "maybe", "--data", "emoji"])


def test_data_without_its_option_are_told_how_they_are_given() -> None:
    with pytest.raises(UserError, match=r"unrecognized arguments: photos/; data are given by .*data.SOURCE"):
        parse_train("dcl", ["photos/", "--steps", "3"])
