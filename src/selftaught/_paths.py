"""Paths as users write them."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from pathlib import Path

__all__ = ["expanded", "part_of"]


def expanded(path: str | Path) -> Path:
    """``~`` and ``~user`` in a path, as the shell takes them; a user whom nobody knows stays as written.

    (`pathlib.Path.expanduser` raises for such a one, where "no such file" says all.)
    """
    return Path(os.path.expanduser(path))


def part_of(path: Path) -> Path:
    """A hidden name beside ``path``, this thread's own, to write a file under before it is put in its place.

    Those that processes of this machine left there when they were killed are taken away.
    """
    host = re.sub(r"[^\w-]", "-", socket.gethostname())[:64]
    ours = re.compile(rf"\.{re.escape(path.name)}\.{re.escape(host)}-(\d+)-\d+\.part")
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if (found := ours.fullmatch(entry.name)) and not _alive(int(found[1])):
                os.unlink(entry.path)
    return path.with_name(f".{path.name}.{host}-{os.getpid()}-{threading.get_ident()}.part")


def _alive(process: int) -> bool:
    """Whether a process of this machine runs; True where it can't be told."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
