"""One process at a time trains in a run's folder, and a killed one is no hindrance."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import selftaught
from selftaught.errors import UserError
from selftaught.evaluation import Number, Result
from selftaught.run import layout, locks, ranks, training
from selftaught.run.evaluations import Evaluation
from tests.conftest import TINY


@contextlib.contextmanager
def another_process(folder: Path) -> Iterator[tuple[int, int]]:
    """A process that holds the lock of a folder, and a loader that it forked; their numbers."""
    reading, writing = os.pipe()
    holder = os.fork()
    if holder == 0:
        try:
            with locks.training_in(folder):
                loader = os.fork()
                if loader:
                    os.write(writing, str(loader).encode())
                time.sleep(60)
        finally:
            os._exit(0)
    loader = int(os.read(reading, 20))
    try:
        yield holder, loader
    finally:
        for pid in (holder, loader):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(holder, 0)
        os.close(reading)
        os.close(writing)


def test_a_killed_holder_is_no_hindrance_although_its_loaders_live_on(tmp_path: Path) -> None:
    with another_process(tmp_path) as (holder, loader):
        with pytest.raises(
            UserError, match=f"^{tmp_path}: process {holder} on .* is training in it; .* stop it first$"
        ):
            locks.training_in(tmp_path).__enter__()
        assert locks.holder(tmp_path / locks.LOCK).startswith(f"process {holder} on ")
        os.kill(holder, signal.SIGKILL)
        while locks.holder(tmp_path / locks.LOCK):
            time.sleep(0.01)
        os.kill(loader, 0)  # it is there
        with locks.training_in(tmp_path):
            assert (tmp_path / locks.LOCK).read_text().startswith(f"process {os.getpid()} on ")
        assert list(tmp_path.iterdir()) == []


def test_a_process_does_not_lock_twice_and_frees_only_its_own_file(tmp_path: Path) -> None:
    lock = tmp_path / locks.LOCK
    with locks.training_in(tmp_path):
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            locks.training_in(tmp_path).__enter__()
        with pytest.raises(UserError, match=f'out="{tmp_path}": process {os.getpid()} on .* choose another out'):
            layout.new_folder(str(tmp_path), "dcl", "photos")
        lock.unlink()
        lock.write_text("another's, in a folder that was made anew")
    assert lock.exists()
    assert layout.is_free(tmp_path)  # what a killed process left
    (tmp_path / "config.yaml").touch()
    assert not layout.is_free(tmp_path)


def test_only_the_first_process_of_a_run_locks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with another_process(tmp_path) as (holder, _):
        with pytest.raises(UserError, match="is training in it"):
            locks.training_in(tmp_path).__enter__()
        monkeypatch.setenv("RANK", "1")
        with locks.training_in(tmp_path):
            assert locks.holder(tmp_path / locks.LOCK).startswith(f"process {holder} on ")


def test_training_in_a_folder_in_use_names_who_uses_it(tiny_run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tiny_run.path)
    monkeypatch.setattr(training.samples, "streams", lambda *_: pytest.fail("the data were opened first"))
    with another_process(tiny_run.path) as (holder, _):
        for more in ({}, {"finish_now": True}):
            with pytest.raises(UserError, match=f"process {holder} on .* is training in it"):
                selftaught.train("simclr", resume=folder, quiet=True, **more)
        with pytest.raises(UserError, match=f"process {holder} on .* is training in it"):
            selftaught.train("simclr", resume="auto", out=folder, quiet=True)
        monkeypatch.undo()
        with pytest.raises(UserError, match=f"out=.*: process {holder} on .* is training in it"):
            selftaught.train("simclr", "digits", out=folder, augment="grey", **TINY)
    assert tiny_run.layout.weights.exists()


def test_two_that_begin_at_once_have_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/dcl-photos-2").mkdir(parents=True)
    found = [str(layout.new_folder(None, "dcl", "photos")) for _ in range(3)]
    assert found == ["runs/dcl-photos", "runs/dcl-photos-3", "runs/dcl-photos-4"]


def test_processes_meet_in_the_folder_of_this_run_and_not_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``srun bash -c "selftaught train dcl; selftaught train byol"``: two runs of one launch."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    for slug in ("dcl", "byol"):
        first = layout.new_folder(None, slug, "photos")
        monkeypatch.setenv("SLURM_PROCID", "1")
        assert layout.new_folder(None, slug, "photos") == first == Path(f"runs/{slug}-photos")
        layout.forget_folder()  # a matter of the first
        assert layout.new_folder(None, slug, "photos") == first
        monkeypatch.setenv("SLURM_PROCID", "0")
        layout.forget_folder()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["byol-photos", "dcl-photos"]


def test_two_launches_of_torchrun_have_different_names() -> None:
    """Without --rdzv-id or --standalone every launch has the id "none" and the same port."""
    one = {"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    assert ranks.launch_id(one) == f"torchrun-none-29500-0-{os.getppid()}"
    again = ranks.launch_id(one | {"TORCHELASTIC_RESTART_COUNT": "1"})
    assert again == f"torchrun-none-29500-1-{os.getppid()}"
    assert ranks.launch_id(one | {"WORLD_SIZE": "4"}) == "torchrun-none-29500-0"  # two machines: two parents


def test_two_that_evaluate_one_run_at_once_lose_nothing(tmp_path: Path) -> None:
    kept = Evaluation(tmp_path / "run")
    errors: list[BaseException] = []

    def judged(number: int) -> None:
        try:
            found = {f"protocol{number}": {"this": Result("knn", {"accuracy": Number(0.1 * number)})}}
            kept.add(found, {"features": np.full((64, 64), number)}, {})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=judged, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(kept.numbers()) == [f"protocol{number}" for number in range(6)]
    assert len(np.unique(kept.features()["features"])) == 1
    assert not list((tmp_path / "run").glob(".*"))


def test_two_that_curate_into_one_folder_are_told_of_each_other(tmp_path: Path) -> None:
    out = tmp_path / "kept"
    with (
        locks.held(tmp_path / "kept.lock", "x", "y"),
        pytest.raises(UserError, match=r"kept.*process \d+ on .* is writing to it"),
    ):
        selftaught.curate("digits?n=40", keep=0.5, out=out)
    assert not any(out.iterdir())
    assert len(selftaught.curate("digits?n=40", keep=0.5, out=out).kept) == 20
    assert not (tmp_path / "kept.lock").exists()


def test_a_lock_that_nobody_holds_is_swept_away_and_one_that_is_held_stays(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 1 on nowhere")
    locks.sweep(tmp_path / ".lock")
    assert not (tmp_path / ".lock").exists()
    locks.sweep(tmp_path / ".lock")
    with another_process(tmp_path):
        locks.sweep(tmp_path / locks.LOCK)
        assert (tmp_path / locks.LOCK).exists()
