"""srun as SLURM does it: two real processes, on two machines that are this one; a requeued job goes on by itself."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from selftaught.run import ranks
from tests.forked import Forked
from tests.two_processes import free_port

TASKS = {"SLURM_JOB_ID": "71", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0"}


def of_rank(rank: int, **more: str) -> dict[str, str]:
    """What srun tells a task: one on each of two nodes, so that both are the first of their node."""
    place = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": "0", "SLURM_NODEID": str(rank), "SLURM_NNODES": "2"}
    return TASKS | place | {"SLURM_NTASKS_PER_NODE": "1", "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NAME": "job"} | more


def test_the_first_of_the_second_node_is_not_the_first() -> None:
    assert [ranks.process_rank(of_rank(rank)) for rank in (0, 1)] == [0, 1]
    assert [ranks.local_rank(of_rank(rank)) for rank in (0, 1)] == [0, 0]
    assert not ranks.is_first(of_rank(1))
    torchrun = {"RANK": "4", "LOCAL_RANK": "0", "GROUP_RANK": "1", "WORLD_SIZE": "8"}
    assert ranks.process_rank(torchrun) == 4
    assert ranks.process_rank({"LOCAL_RANK": "0", "NODE_RANK": "1"}) != 0  # Lightning's own launcher
    assert ranks.process_rank({"SLURM_JOB_ID": "71", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == 0


def test_a_requeued_job_is_another_launch_and_a_step_is_one_of_its_own() -> None:
    first = ranks.launch_id(of_rank(0))
    assert first == ranks.launch_id(of_rank(1))
    assert first != ranks.launch_id(of_rank(0, SLURM_RESTART_COUNT="1"))
    assert first != ranks.launch_id(of_rank(0, SLURM_STEP_ID="1"))


@pytest.fixture
def started() -> Any:
    """Processes that a test began; none is left behind."""
    every: list[Forked] = []
    yield every
    for task in every:
        if task.poll() is None:
            task.kill()
            task.communicate()


def srun(place: Path, *words: str, restart: int = 0) -> list[Forked]:
    assert not {"LOCAL_RANK", "RANK", "WORLD_SIZE"} & os.environ.keys()
    more = {"MASTER_PORT": str(free_port()), "SLURM_RESTART_COUNT": str(restart)}
    return [Forked(["train", *words], place, **of_rank(rank, **more)) for rank in (0, 1)]


COMMAND = [
    "simclr", "--data", "digits?n=128", "--encoder", "resnet10-narrow", "--image-size", "32", "--projector", "32-16",
    "--stem", "standard", "--augment", "grey", "--batch-size", "16", "--workers", "0", "--knn-every", "0",
    "--loggers", "none", "--no-report", "--nodes", "2", "--device", "cpu", "--precision", "32",
]  # fmt: skip


@pytest.mark.slow
def test_two_nodes_train_one_run_and_the_same_command_goes_on_when_requeued(tmp_path: Path, started: Any) -> None:
    words = [*COMMAND, "--steps", "24", "--checkpoint-steps", "2", "--out", "runs/a", "--resume", "auto"]
    tasks = srun(tmp_path, *words)
    started += tasks
    checkpoint = tmp_path / "runs/a/checkpoints/train.ckpt"
    end = time.monotonic() + 200
    while not checkpoint.exists() and time.monotonic() < end:
        assert all(task.poll() is None for task in tasks), [task.communicate() for task in tasks]
        time.sleep(0.02)
    for task in tasks:  # --signal=TERM@120
        task.send_signal(signal.SIGTERM)
    told = [task.communicate(timeout=200) for task in tasks]
    assert [task.returncode for task in tasks] == [143, 143], told
    stopped = torch.load(checkpoint, weights_only=True)["selftaught"]["steps"]
    assert 2 <= stopped < 24
    again = srun(tmp_path, *words, restart=1)
    started += again
    said = [task.communicate(timeout=300) for task in again]
    assert [task.returncode for task in again] == [0, 0], said
    assert "simclr on digits" in said[0][0]
    assert said[1][0] == ""  # the second node's first task prints nothing
    assert torch.load(checkpoint, weights_only=True)["selftaught"]["steps"] == 24
    assert sorted(p.name for p in (tmp_path / "runs").iterdir() if not p.name.startswith(".")) == ["a"]
    whole = srun(tmp_path, *COMMAND, "--steps", "24")  # one folder, which the first chooses
    started += whole
    ended = [task.communicate(timeout=300) for task in whole]
    assert [task.returncode for task in whole] == [0, 0], ended
    found = [path for path in (tmp_path / "runs").iterdir() if path.name != "a" and not path.name.startswith(".")]
    assert len(found) == 1
    config = yaml.safe_load((found[0] / "config.yaml").read_text())
    assert config["settings"]["nodes"] == 2
    one, two = (load_file(path / "encoder.safetensors") for path in (tmp_path / "runs/a", found[0]))
    assert all(torch.equal(one[name], two[name]) for name in one)
