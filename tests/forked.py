"""Real processes that start at once: forked from a server that has imported the libraries, but not selftaught.

A process of its own spends six seconds on imports, more than most tests need for what they check. A forked one is as
real: memory, standard streams, environment and folder are its own, and it is killed and signalled like any other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path

LIBRARIES = ["torch", "lightning.pytorch", "torchvision", "scipy.signal", "sklearn.linear_model", "cv2"]
SETTINGS = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(LIBRARIES)


class Forked:
    """A process under way, as ``subprocess.Popen`` gives it.

    Args:
        program: the words of a ``selftaught`` command, or Python code as a text.
        folder: where it runs; what it prints goes into hidden files there.
        env: added to this process's environment.
    """

    def __init__(self, program: Sequence[str] | str, folder: Path, **env: str) -> None:
        self._streams = [folder / f".{name}-{os.urandom(4).hex()}" for name in ("out", "err")]
        paths = [str(path) for path in self._streams]
        words = program if isinstance(program, str) else list(program)
        self._process = _CONTEXT.Process(target=_become, args=(words, str(folder), os.environ | SETTINGS | env, paths))
        self._process.start()
        self.pid: int = self._process.pid  # type: ignore[assignment]

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, which: signal.Signals) -> None:
        os.kill(self.pid, which)

    def signal_all(self, which: signal.Signals) -> None:
        """To the process and to those that it began."""
        os.killpg(self.pid, which)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it printed, once it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._streams[0]), timeout)
        out, err = (path.read_text() for path in self._streams)
        return out, err


def run(program: Sequence[str] | str, folder: Path, **env: str) -> str:
    """What a program prints that must end well."""
    process = Forked(program, folder, **env)
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return out


def _become(program: list[str] | str, folder: str, env: dict[str, str], streams: list[str]) -> None:
    os.setsid()
    for path, number in zip(streams, (1, 2), strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[:0] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    if isinstance(program, str):
        sys.argv = ["-c"]
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), module.__dict__)
        return
    sys.argv = ["selftaught", *program]
    from selftaught.cli import main

    sys.exit(main(program))
