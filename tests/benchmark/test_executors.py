"""Executors: disjoint cores, a process that dies, stopping; the cluster's names for our settings."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from selftaught.benchmark import executors
from selftaught.errors import UserError
from tests.benchmark import helpers


def test_serial_does_all_in_order_in_this_process() -> None:
    seen = helpers.Watched()
    executors.Serial().run(helpers.fragile, [("a",), ("b",)], seen)
    assert seen.begun == [0, 1]
    assert seen.problems == {0: "a", 1: "b"}


@pytest.mark.slow
def test_processes_share_out_the_cores() -> None:
    seen = helpers.Watched()
    executors.Processes(2).run(helpers.report, [(f"job{k}",) for k in range(4)], seen)
    told = [seen.problems[k].split() for k in range(4)]
    assert [words[0] for words in told] == [f"job{k}" for k in range(4)]
    by_process = {words[1]: words[2] for words in told}
    assert str(os.getpid()) not in by_process
    assert len(by_process) <= 2
    own = os.sched_getaffinity(0)
    shares = [set(map(int, cores.split(","))) for cores in by_process.values()]
    assert all(share <= own for share in shares)
    if len(own) >= 2 and len(shares) == 2:
        assert not shares[0] & shares[1]
    assert all(int(words[3]) <= len(words[2].split(",")) for words in told)


@pytest.mark.slow
def test_a_process_that_dies_fails_its_job_alone() -> None:
    seen = helpers.Watched()
    executors.Processes(1).run(helpers.fragile, [("a",), ("die",), ("b",)], seen)
    assert seen.problems[0] == "a"
    assert "code 9" in seen.problems[1]
    assert seen.problems[2] == "b"


@pytest.mark.slow
def test_a_signal_stops_the_workers(tmp_path: Path) -> None:
    file = tmp_path / "state"

    def stop() -> None:
        until = time.monotonic() + 60
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        executors.Processes(1).run(helpers.sleepy, [(str(file),)], helpers.Watched())
    thread.join()
    assert file.read_text() == "stopped"
    assert signal.getsignal(signal.SIGTERM) == before


def test_core_shares_are_disjoint_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(7)), raising=False)
    assert executors.core_shares(1) == [[0, 1, 2, 3, 4, 5, 6]]
    assert executors.core_shares(3) == [[0, 1, 2], [3, 4], [5, 6]]
    assert executors.core_shares(9) == [[0], [1], [2], [3], [4], [5], [6], [0], [1]]


def test_threads_of_a_worker_are_its_share_or_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = executors._variables(0, 4)
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["MKL_NUM_THREADS"] == "4"
    with executors._environment({"MKL_NUM_THREADS": "3"}):
        assert os.environ["MKL_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ


def test_choice_and_errors(tmp_path: Path) -> None:
    assert isinstance(executors.choose(1, None, tmp_path, {}), executors.Serial)
    assert executors.choose(3, None, tmp_path, {}).workers == 3
    for arguments, said in (
        ((0, None, tmp_path, {}), "workers=0"),
        ((2, "slurm", tmp_path, {}), "one of them"),
        ((1, "kube", tmp_path, {}), "slurm, local, debug"),
        ((1, "slurm", tmp_path, {"hours": 3}), "minutes"),
    ):
        with pytest.raises(UserError, match=said):
            executors.choose(*arguments)


def test_cluster_settings_in_submitits_names() -> None:
    settings = {
        "minutes": 90, "cpus": 8, "gpus": 1, "memory_gb": 32, "partition": "gpu", "account": "lab", "at_once": 16,
        "extra": {"qos": "low"},
    }  # fmt: skip
    assert executors.Cluster.parameters("slurm", settings) == {
        "name": "selftaught", "timeout_min": 90, "nodes": 1, "cpus_per_task": 8, "gpus_per_node": 1, "mem_gb": 32,
        "slurm_partition": "gpu", "slurm_account": "lab", "slurm_array_parallelism": 16,
        "slurm_additional_parameters": {"qos": "low"},
    }  # fmt: skip
    assert not any(name.startswith("slurm") for name in executors.Cluster.parameters("local", settings))


@pytest.mark.skipif(importlib.util.find_spec("submitit") is not None, reason="submitit is installed")
def test_without_submitit_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"selftaught\[cluster\]"):
        executors.Cluster("slurm", tmp_path, {})


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
def test_submitits_local_processes_do_the_jobs(tmp_path: Path) -> None:
    seen = helpers.Watched()
    cluster = executors.Cluster("local", tmp_path, {"minutes": 5}, poll=0.2)
    cluster.run(helpers.fragile, [("a",), ("die",), ("b",)], seen)
    assert seen.problems[0] == "a"
    assert seen.problems[1].startswith("job ")
    assert seen.problems[2] == "b"
