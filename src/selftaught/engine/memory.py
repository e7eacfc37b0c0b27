"""Memory that a training step gives back stays with the process, for the next step to take."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["freed_memory_kept"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers of what mallopt sets
_LARGEST = 2**31 - 1
_USUAL = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}  # what glibc itself comes to with large blocks
_within: list[bool] = []
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Within it blocks that are freed are not handed to the system and asked for again, page by page.

    A step on the CPU frees gigabytes of activations and takes as much anew in the next one; where the system has taken
    them in between, every page is cleared and mapped again: a seventh of some steps. The process holds what its largest
    step takes, and up to a quarter more where blocks of many sizes lie between each other. Of glibc alone; elsewhere,
    and where the environment has chosen already (``MALLOC_TRIM_THRESHOLD_`` and its like, ``GLIBC_TUNABLES``), nothing
    changes. One within another ends with the outer one.

    Yields:
        Whether it does anything here.
    """
    chosen = any(name in os.environ for name in _CHOSEN) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or platform.libc_ver()[0] != "glibc":
        yield False
        return
    own = ctypes.CDLL(None)
    _within.append(True)
    for what in _USUAL:
        own.mallopt(what, _LARGEST)
    try:
        yield True
    finally:
        _within.pop()
        if not _within:
            for what, size in _USUAL.items():
                own.mallopt(what, size)
            own.malloc_trim(0)
