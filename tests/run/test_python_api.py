"""What `train` takes from Python besides options: callbacks, options of the trainer, several folders, a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import selftaught
from selftaught import UserError
from selftaught.cli import main
from selftaught.data import open_source
from selftaught.data.spec import several
from selftaught.run import applying
from tests.conftest import TINY, write_photos

OPTIONS = TINY | {"augment": "small", "steps": 3, "batch_size": 16}


class Count(L.Callback):
    """What a callback of one's own sees."""

    def __init__(self) -> None:
        self.steps, self.watched = 0, set[bool]()

    def on_train_batch_end(self, trainer: Any, method: Any, *_: Any) -> None:
        self.steps += 1
        self.watched.add(torch.is_anomaly_enabled())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    place = tmp_path_factory.mktemp("folders")
    return str(write_photos(place / "one", 24)), str(write_photos(place / "two", 16, classes=1))


def test_callbacks_trainer_options_and_several_folders(folders, tmp_path: Path) -> None:
    count, options = Count(), {"detect_anomaly": True}
    run = selftaught.train(
        "simclr", [*folders], out=str(tmp_path / "run"), callbacks=[count], trainer=options, **OPTIONS
    )
    assert count.steps == 3
    assert count.watched == {True}
    learnt = run.config["data"]
    assert run.config["settings"]["data"] == " + ".join(folders)
    assert learnt["samples"] == len(open_source([*folders], split="pretrain")) > 24
    # and it goes on, is judged and applied by that name
    run.layout.weights.unlink()
    again = Count()
    done = selftaught.train("simclr", resume="auto", out=str(run.path), callbacks=[again], quiet=True)
    assert done.layout.weights.exists()
    assert run.apply(" + ".join(folders), tmp_path / "e.npy", workers=0) == 40
    with pytest.raises(UserError, match="inside the input"):
        run.apply(" + ".join(folders), Path(folders[1]) / "e.npy", workers=0)


@pytest.mark.slow
def test_a_report_is_written_on_request(tmp_path: Path) -> None:
    run = selftaught.train(
        "simclr", "digits?n=60", out=str(tmp_path / "run"), report=True, **OPTIONS | {"augment": "grey"}
    )
    assert "<html" in run.layout.report.read_text()[:300]


def test_callbacks_are_not_lost_where_auto_goes_on(tmp_path: Path) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: Any, method: Any, *_: Any) -> None:
            if method.steps == 2:
                raise KeyboardInterrupt

    options = OPTIONS | {"augment": "grey", "checkpoint_steps": 1, "validation": 0.2}
    with pytest.raises(BaseException):  # noqa: B017 - however Lightning ends it
        selftaught.train("simclr", "digits", out=str(tmp_path / "run"), callbacks=[Stop()], **options)
    count = Count()
    selftaught.train("simclr", "digits", out=str(tmp_path / "run"), resume="auto", callbacks=[count], **options)
    assert 1 <= count.steps <= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gradient_clip_algorithm": "value"}, "give clip="),
        ({"max_epochs": 3}, "give epochs="),
        ({"limit_train_batches": 3}, "would break the run's order"),
        ({"profilr": "simple"}, "Lightning's Trainer has none: profiler?"),
    ],
)
def test_trainer_options_that_a_run_has_itself_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        selftaught.train("simclr", "digits", trainer=options)


DIGITS = {"data": "digits", "steps": 1, "quiet": True}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: selftaught.train(None, "digits"), "None is no method's name"),  # type: ignore[arg-type]
        (lambda: selftaught.methods.get(3), "3 is no method's name"),  # type: ignore[arg-type]
        (lambda: selftaught.train("dcl", resume=True), "True is no run: give the path"),  # type: ignore[arg-type]
        (lambda: selftaught.load(None), "None is no run: give the path"),  # type: ignore[arg-type]
        (lambda: selftaught.train("dcl", init=3, **DIGITS), "3 is no run"),
        (lambda: selftaught.train("dcl", callbacks=3, **DIGITS), "callbacks: give a list of lightning.Callback"),
        (lambda: selftaught.train("dcl", callbacks=["x"], **DIGITS), "callbacks: give a list of lightning.Callback"),
        (lambda: selftaught.train("dcl", trainer=3, **DIGITS), "trainer=3: give a dict"),
        (lambda: selftaught.networks.encoder(3), "encoder=3: give the name"),  # type: ignore[arg-type]
        (lambda: selftaught.DataModule("digits", 3), "the method must be one of selftaught.methods, got int"),
        (
            lambda: selftaught.DataModule("digits", selftaught.methods.DCL(encoder="cnn-small"), batch_size="8"),  # type: ignore[arg-type]
            "batch_size='8'; it may be: a whole number above 0",
        ),
    ],
)
def test_a_wrong_type_is_named_and_nothing_is_left_behind(
    call: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        call()
    assert not list(tmp_path.iterdir())


def test_several_folders_on_the_command_line(folders, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"--{k.replace('_', '-')}={v}" for k, v in OPTIONS.items() if k != "quiet"]
    assert main(["train", "simclr", f"--data={folders[0]}", "--data", folders[1], "--dry-run", *words]) == 0
    assert "simclr on one/ + two/: " in capsys.readouterr().out


def test_a_string_names_several_sources_unless_a_path_has_that_name(tmp_path: Path, folders) -> None:
    assert several("a/ + b/?n=5") == ["a/", "b/?n=5"]
    assert several("a/") == ["a/"]
    odd = write_photos(tmp_path / "black + white", 6, classes=1)
    assert several(str(odd)) == [str(odd)]
    assert len(open_source(str(odd), split="all")) == 6
    assert len(open_source(f"{odd}?n=2", split="all")) == 2
    assert len(open_source(f"{folders[0]}?n=4 + {folders[1]}", split="all")) == 20
    assert applying.input_paths(" + ".join(folders)) == [Path(one).resolve() for one in folders]


def test_the_methods_are_listed_by_dir() -> None:
    found = dir(selftaught.methods)
    assert {"DCL", "SimCLR", "get"} <= set(found)
    assert all(hasattr(selftaught.methods, name) for name in ("DCL", "BarlowTwins"))
    assert not [name for name in found if name.startswith("_")]
