"""Whose a place on the disk is while somebody writes there: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from selftaught._words import typed
from selftaught.errors import UserError
from selftaught.run.ranks import is_first

__all__ = ["LOCK", "held", "holder", "in_turn", "refuse_if_training", "sweep", "training_in"]

LOCK = ".lock"
"""Of a run's folder, while it is trained in."""
_OURS: dict[tuple[int, str], object] = {}
"""What each process holds: the system would let one process lock a file twice, and free it at the first closing."""
_TAKEN = {errno.EACCES, errno.EAGAIN}


@contextlib.contextmanager
def held(path: Path, what: str, doing: str) -> Iterator[None]:
    """Hold the file ``path`` as a lock.

    The lock is the process's own: the loaders that it forks don't keep it when it is killed. What a killed process left
    is taken over. On a disk that knows no locks nothing is held.

    Args:
        path: file, made here and taken away at the end.
        what: the place, with which a refusal begins.
        doing: what its holder does there, and the mend, with which it ends.

    Raises:
        UserError: another one holds it, who is named.
        OSError: the file can't be made.
    """
    token, key = object(), (os.getpid(), os.path.realpath(path))
    if _OURS.setdefault(key, token) is not token:
        raise UserError(f"{what}: {_name()} {doing}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _taken(path, what, doing)
        try:
            os.ftruncate(handle, 0)
            os.write(handle, _name().encode())
            yield
        finally:
            if os.getpid() == key[0]:
                with contextlib.suppress(OSError):
                    if _same_file(handle, path):
                        path.unlink()
            os.close(handle)
    finally:
        _OURS.pop(key, None)


@contextlib.contextmanager
def in_turn(path: Path, what: str, seconds: float = 60) -> Iterator[None]:
    """Hold the file ``path`` as a lock, after those who hold it now: for what takes an instant.

    Raises:
        UserError: another one holds it for so long.
        OSError: the file can't be made.
    """
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(path, what, "is writing there; wait for it"))
                break
            except UserError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield


def sweep(path: Path) -> None:
    """Take away the lock of a process that was killed, where nobody will hold it again."""
    if path.exists():
        with contextlib.suppress(UserError, OSError), held(path, str(path), "is at work"):
            pass


def holder(path: Path) -> str:
    """Who holds the lock ``path``, such as "process 12 on host"; empty where nobody does."""
    if (os.getpid(), os.path.realpath(path)) in _OURS:
        return _name()
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return ""
    try:
        return "" if _lock(handle) else _written(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def training_in(folder: Path, out: bool = False) -> Iterator[None]:
    """Hold a run's folder while it is trained in; a matter of the first of its processes.

    Args:
        folder: of the run.
        out: whether it was named by ``--out``.

    Raises:
        UserError: another process trains in it.
    """
    writable = os.access(folder, os.W_OK)  # nothing is trained in a folder that can't be written to
    if not is_first() or not writable:
        yield
        return
    with held(folder / LOCK, *_refusal(folder, out)):
        yield


def refuse_if_training(folder: Path) -> None:
    """Refuse ``--out folder`` where another process trains in it.

    Raises:
        UserError: it names the process.
    """
    what, doing = _refusal(folder, out=True)
    if other := holder(folder / LOCK):
        raise UserError(f"{what}: {other} {doing}")


def _refusal(folder: Path, out: bool) -> tuple[str, str]:
    mend = "choose another --out" if out else "stop it first"
    return f"--out {typed(folder)}" if out else str(folder), f"is training in it; wait for it, or {mend}"


def _name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _written(handle: int) -> str:
    """What the holder of a lock wrote of itself."""
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, 200).decode(errors="replace") or "another process"


def _taken(path: Path, what: str, doing: str) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _lock(handle):
            other = _written(handle)
            os.close(handle)
            raise UserError(f"{what}: {other} {doing}")
        if _same_file(handle, path):
            return handle
        os.close(handle)  # its holder took it away between our opening and our locking


def _same_file(handle: int, path: Path) -> bool:
    """Whether ``path`` is still the file that was opened."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(handle: int) -> bool:
    """Whether the file is ours now; True as well on a disk without locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(handle, 1 << 20, os.SEEK_SET)  # beyond what is written: a locked byte can't be read by others there
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        os.lseek(handle, 0, os.SEEK_SET)
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True
