"""Small problems run on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORTH_SHARING = 1e9


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """Use a single thread inside when the work of one step is small; the old number comes back afterwards.

    Thousands of short operations gain nothing from a second thread, and where the cores are busy (loader workers,
    other runs) the threads wait for each other: measured on two shared cores, few-label probes were 3 to 10 times
    slower on two threads than on one.

    Args:
        work: multiplications of one step.
    """
    before = torch.get_num_threads()
    if work < WORTH_SHARING:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
