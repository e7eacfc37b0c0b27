"""Two processes that stay up for a whole test session: starting a pair for each test costs more than what it tests.

A job is a function of a test module; both processes call it with the same arguments and give what it returns.
"""

from __future__ import annotations

import atexit
import importlib
import io
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch

PATIENCE = 240
"""Seconds that a job may take."""


def by_two(function: Callable[..., Any], *args: Any, joined: bool = False) -> list[Any]:
    """What a function returns in each of two processes that form a group.

    Args:
        function: of a module's top level; what it returns must pass ``torch.load(weights_only=True)``.
        args: its arguments.
        joined: the process group is there when it is called; False: it, or Lightning, makes it.
    """
    ranks, port = _ranks(), free_port()
    for _, connection in ranks:
        connection.send((function.__module__, function.__qualname__, args, joined, port))
    answers = []
    for process, connection in ranks:
        if not connection.poll(PATIENCE):
            _stop()
            raise TimeoutError(f"{function.__qualname__} took longer than {PATIENCE} s on two processes")
        try:
            answers.append(connection.recv())
        except EOFError:
            _stop()
            raise RuntimeError(f"{function.__qualname__}: a process ended with {process.exitcode}") from None
    failed = [text for good, text in answers if not good]
    if failed:
        _stop()  # they may wait for each other
        raise RuntimeError("\n".join(failed))
    return [torch.load(io.BytesIO(found), weights_only=True) for _, found in answers]


_pair: list[tuple[Any, Connection]] = []


def _ranks() -> list[tuple[Any, Connection]]:
    if not _pair:
        context = multiprocessing.get_context("spawn")
        for rank in (0, 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            process.start()
            theirs.close()
            _pair.append((process, ours))
        atexit.register(_stop)
    return _pair


def _stop() -> None:
    for process, connection in _pair:
        connection.close()
        process.terminate()
        process.join(10)
    _pair.clear()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _serve(rank: int, connection: Connection) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_RUN_ID": "tests",
        "OMP_NUM_THREADS": "1",
    }
    sys.stdout = sys.stderr = io.StringIO()
    while True:
        try:
            module, name, args, joined, port = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        os.environ["MASTER_PORT"] = str(port)
        dist = torch.distributed
        try:
            if joined:
                dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=PATIENCE))
            found = io.BytesIO()
            torch.save(getattr(importlib.import_module(module), name)(*args), found)
            if dist.is_initialized():
                dist.barrier()  # else the other process may lose it while threads of gloo still run
            connection.send((True, found.getvalue()))
        except BaseException:
            connection.send((False, f"rank {rank}:\n{traceback.format_exc()}"))
        finally:
            with suppress(Exception):
                if dist.is_initialized():
                    dist.destroy_process_group()
