"""What docs/robustness.md promises: begun again after any kill, full disks in one line, nothing unusable in silence."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import selftaught
from selftaught.cli import main
from selftaught.errors import UserError
from tests import forked
from tests.harness import Killed, content, damaged, killing, train_tiny


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


# ---- what held, and goes on holding ---------------------------------------------------------------------------------
REPEATED = {
    "evaluate": (["evaluate", "run", "--protocol", "knn"], "run"),
    "export": (["export", "run", "--format", "safetensors", "--out", "model"], "."),
    "curate": (["curate", "digits?n=30", "--keep", "0.5", "--out", "kept"], "kept"),
}


@pytest.mark.parametrize("command", REPEATED)
def test_killed_while_files_are_put_in_place_the_same_command_ends_in_the_same_files(
    command: str, run: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    argv, made = REPEATED[command]

    def begin(name: str) -> None:
        shutil.copytree(run, tmp_path / name / "run")
        monkeypatch.chdir(tmp_path / name)

    def files(name: str) -> dict[str, Any]:
        found = content(tmp_path / name / made)
        return {path: read(path, data) for path, data in found.items() if not path.startswith(".")}

    begin("whole")
    with killing(None) as passed:
        assert main(argv) == 0
    expected = files("whole")
    assert passed[0] >= 2
    moments = sorted({0, passed[0] // 2, passed[0] // 2 + 1, passed[0] - 1})
    for moment in moments[1::2] if command == "evaluate" else moments:  # evaluating takes its time
        begin(f"cut{moment}")
        with pytest.raises(Killed), killing(moment):
            main(argv)
        if not (command == "curate" and files(f"cut{moment}")):  # then it is done, and a second call says so
            assert main(argv) == 0
        assert files(f"cut{moment}") == expected, moment


def read(name: str, data: bytes) -> Any:
    """What a file says, but for the clock."""
    if (
        name.endswith("metrics.csv")
        or "events." in name
        or name.endswith(("config.yaml", ".ckpt", ".html", "state.json"))
    ):
        return bool(data)
    if name.endswith(".json"):
        return re.sub(rb'"(embedding|choosing|seconds|time|date)": [^,}]+', b"", data)
    if name.endswith(".npz"):
        with np.load(io.BytesIO(data)) as kept:
            return {key: kept[key].tobytes() for key in kept.files}
    return data


def test_loader_processes_change_nothing(run: Path, tmp_path: Path) -> None:
    train_tiny("encoder", tmp_path / "run", tmp_path, log_every=1, workers=2)
    assert (tmp_path / "run/encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()


def test_descriptors_and_threads_stay_flat(run: Path, tmp_path: Path) -> None:
    open_before, threads_before = 0, 0
    for k in range(4):
        selftaught.load(run).apply("digits?n=20", tmp_path / f"{k}.parquet", workers=0)
        found = len(os.listdir("/proc/self/fd")), threading.active_count()
        if k == 1:  # what is opened once is open by then
            open_before, threads_before = found
    assert found[0] <= open_before
    assert found[1] <= threads_before


@pytest.mark.slow
def test_memory_descriptors_and_threads_stay_flat_over_many_steps(tmp_path: Path) -> None:
    """Of a training with a loader process: nothing grows from step to step."""
    said = forked.run(
        "import os, resource, threading, selftaught\n"
        "from lightning.pytorch.callbacks import Callback\n"
        "class Watch(Callback):\n"
        "    def on_train_batch_end(self, trainer, module, *_):\n"
        "        if module.steps in (100, 500):\n"
        "            pages = int(open('/proc/self/statm').read().split()[1])\n"
        "            used = pages * resource.getpagesize() / 2**20\n"
        "            print('seen', used, len(os.listdir('/proc/self/fd')), threading.active_count())\n"
        "selftaught.train('simclr', 'digits?n=60', out='run', callbacks=[Watch()], encoder='cnn-small',\n"
        "    image_size=16, projector='16-8', augment='grey', batch_size=16, steps=500, workers=1, quiet=True,\n"
        "    knn_every=0, loggers=['none'], precision='32', log_every=50)\n",
        tmp_path,
    )
    early, late = ([float(word) for word in line.split()[1:]] for line in said.splitlines() if line[:4] == "seen")
    assert late[0] - early[0] < 24, "400 steps of one leaked graph each take more"
    assert late[1:] == early[1:]
