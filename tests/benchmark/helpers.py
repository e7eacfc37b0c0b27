"""Shared by the grid's tests: a tiny grid on digits, a watcher, and jobs that worker processes can import."""

from __future__ import annotations

import os
from typing import Any

TINY: dict[str, Any] = {
    "methods": ["simclr"],
    "sources": {"small": "digits?n=160", "other": "digits?n=120&by=ratio:0.4"},
    "data": ["small"],
    "seeds": 1,
    "options": {
        "encoder": "resnet10-narrow", "stem": "standard", "image_size": 32, "augment": "grey", "steps": 2,
        "batch_size": 16, "log_every": 1, "precision": "32",
    },
}  # fmt: skip


class Watched:
    """Keeps what an executor tells."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.problems: dict[int, str] = {}

    def started(self, position: int) -> None:
        self.begun.append(position)

    def ended(self, position: int, problem: str) -> None:
        self.problems[position] = problem


def report(word: str) -> str:
    """What a worker process looks like from inside."""
    import torch

    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return f"{word} {os.getpid()} {cores} {torch.get_num_threads()}"


def fragile(word: str) -> str:
    """Dies on "die", as a process does that the system kills."""
    if word == "die":
        os._exit(9)
    return word


def sleepy(path: str) -> str:
    """Leaves a file, then waits for a signal."""
    import time
    from pathlib import Path

    Path(path).write_text("here")
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        Path(path).write_text("stopped")
        raise
    return ""
