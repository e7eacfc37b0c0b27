"""What docs/robustness.md promises: begun again after any kill, full disks in one line, nothing unusable in silence."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import selftaught
from selftaught.cli import main
from selftaught.errors import UserError
from tests.harness import Killed, damaged, killing, train_tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps with a row of its metrics at each."""
    place = tmp_path_factory.mktemp("promises")
    train_tiny("encoder", place / "run", place, log_every=1)
    return place / "run"


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a run that was killed after its first checkpoints."""
    place = tmp_path_factory.mktemp("cut")
    with pytest.raises(Killed), killing(13):
        train_tiny("encoder", place / "run", place, log_every=1)
    assert (place / "run/checkpoints/train.ckpt").exists()
    return place / "run"


@contextmanager
def full_disk(number: int, times: int = 10**6, name: str = "") -> Iterator[None]:
    """No file comes into its place: an OSError of that number, so many times, for files whose path holds ``name``."""
    left, real = [times], os.replace

    def refused(source: Any, target: Any, **more: Any) -> None:
        if name in str(target) and left[0] > 0:
            left[0] -= 1
            raise OSError(number, os.strerror(number), str(target))
        real(source, target, **more)

    with pytest.MonkeyPatch.context() as patch:
        for owner, moved in ((os, "replace"), (os, "rename")):
            patch.setattr(owner, moved, refused)
        patch.setattr(Path, "replace", lambda self, target: (refused(self, target), Path(target))[1])
        patch.setattr(Path, "rename", lambda self, target: (refused(self, target), Path(target))[1])
        yield


def rows(path: Path) -> list[list[str]]:
    """The rows of a metrics.csv without the clock's column."""
    found = [line.split(",") for line in path.read_text().splitlines()]
    clock = found[0].index("per_second")
    return [row[:clock] + row[clock + 1 :] for row in found]


@pytest.mark.parametrize("moment", [0, 1])
def test_killed_while_its_configuration_is_put_in_place_the_same_command_begins_again(
    moment: int, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed), killing(moment):
        train_tiny("encoder", tmp_path / "run", tmp_path, log_every=1)
    assert (tmp_path / "run/config.yaml").exists() == (moment == 1)
    train_tiny("encoder", tmp_path / "run", tmp_path, log_every=1)
    assert (tmp_path / "run/encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()
    assert rows(tmp_path / "run/metrics.csv") == rows(run / "metrics.csv")


@pytest.mark.parametrize("damage", ["empty", "half", "one bit", "a list"])
def test_a_damaged_checkpoint_is_named_when_a_killed_run_goes_on(damage: str, cut: Path, tmp_path: Path) -> None:
    damaged(cut, tmp_path / "run", "checkpoints/train.ckpt", damage)
    with pytest.raises(UserError, match=r"checkpoints/train\.ckpt: (damaged|can't be read|not a checkpoint)"):
        selftaught.train("simclr", resume=tmp_path / "run", quiet=True, workers=0)


def test_missing_weights_are_written_again_from_the_checkpoint(run: Path, tmp_path: Path) -> None:
    whole = load_file(run / "encoder.safetensors")
    for name in ("encoder.safetensors", "encoder.json"):
        shutil.copytree(run, tmp_path / name)
        (tmp_path / name / name).unlink()
        selftaught.train("simclr", resume=tmp_path / name, quiet=True, workers=0)
        again = load_file(tmp_path / name / "encoder.safetensors")
        assert whole.keys() == again.keys()
        assert all((whole[key] == again[key]).all() for key in whole)
        assert (tmp_path / name / "encoder.json").read_bytes() == (run / "encoder.json").read_bytes()


def test_a_full_disk_where_the_curve_stands_ends_no_training(run: Path, tmp_path: Path) -> None:
    with full_disk(errno.ENOSPC, times=2, name="metrics.csv"):
        train_tiny("encoder", tmp_path / "run", tmp_path, log_every=1)
    assert (tmp_path / "run/encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()
    assert rows(tmp_path / "run/metrics.csv") == rows(run / "metrics.csv"), "rows that found no room come with the next"


COMMANDS = {
    "train": ["train", "simclr", "--data", "digits?n=60", "--encoder", "cnn-small", "--image-size", "16", "--projector",
              "16-8", "--augment", "grey", "--batch-size", "16", "--steps", "1", "--knn-every", "0", "--loggers",
              "none", "--no-report", "--workers", "0", "--out", "out"],
    "apply to a table": ["apply", "run", "digits?n=20", "--out", "out.parquet", "--workers", "0"],
    "apply to an array": ["apply", "run", "digits?n=20", "--out", "out.npy", "--workers", "0"],
    "evaluate": ["evaluate", "run", "--protocol", "knn"],
    "export": ["export", "run", "--format", "safetensors", "--out", "out"],
    "degrade": ["degrade", "noise", "digits?n=3", "out"],
    "curate": ["curate", "digits?n=60", "--keep", "0.5", "--out", "out"],
}  # fmt: skip


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_or_read_only_disk_is_one_line_and_leaves_no_part(
    command: str, number: int, run: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "run")
    with full_disk(number):
        code = main(COMMANDS[command])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("selftaught:")]
    assert (code, len(said)) == (2, 1), said
    assert os.strerror(number) in said[0]
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name and path.is_file()]


def test_without_a_usable_sample_a_command_ends_loudly(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").mkdir()
    for k in range(4):
        (tmp_path / f"bad/{k}.png").write_bytes(b"no picture")
    small = ["--patch", "24", "--width", "16", "--modules", "1", "--steps", "1", "--batch-size", "2", "--workers", "0"]
    assert main(["train", "c-bsn", "--data", "bad", "--out", "run", "--max-skip", "1", *small]) == 2
    assert "selftaught: " in capsys.readouterr().err


def test_advice_is_about_what_was_given(run: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", str(run), "--data", "digits"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "selftaught: --data digits has 1438 samples, 60 when the run began: leave it out, and the run goes on with "
        "digits?n=60\n"
    )
