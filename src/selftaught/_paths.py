"""Paths as users write them."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import socket
import threading
from pathlib import Path, PurePosixPath

__all__ = ["ON_DISK", "bare", "expanded", "no_name", "part_of"]

ON_DISK = "selftaught.on_disk"
"""How names are written: bytes that are no UTF-8 as they are on disk; what no file's name can hold becomes U+FFFD."""


def _on_disk(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    code = ord(error.object[error.start])
    escaped = 0xDC80 <= code <= 0xDCFF  # as `os.fsdecode` has a byte that is no UTF-8
    return bytes([code - 0xDC00]) if escaped else "\ufffd".encode(), error.start + 1


codecs.register_error(ON_DISK, _on_disk)
_NO_NAME = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")


def no_name(text: str) -> str:
    """A name out of an archive or a table as a file can bear it."""
    return _NO_NAME.sub("\ufffd", text)


def bare(name: str) -> str:
    """A sample's name without its suffix; the one clip of a folder of frames is called "." and has none."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.name else name


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
