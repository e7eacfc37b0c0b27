"""Freed memory stays with a process that trains, and goes back to the system afterwards."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does with freed blocks")

_PROGRAM = """
import json, resource
import numpy as np
from selftaught.engine.memory import freed_memory_kept

def mapped():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [np.ones(size << 20, np.uint8) for size in (3, 40, 80)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

usual, before = mapped(), held()
with freed_memory_kept() as acts:
    with freed_memory_kept():
        mapped()
    kept, within = mapped(), held()
print(json.dumps({"acts": acts, "usual": usual, "kept": kept, "before": before, "within": within, "after": held()}))
"""


def _counted(**environment: str) -> dict[str, int]:
    clean = {name: value for name, value in os.environ.items() if "MALLOC" not in name and name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=clean | environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_blocks_are_not_mapped_anew_and_go_back_at_the_end() -> None:
    found = _counted()
    assert found["acts"]
    assert found["usual"] > 200  # 123 MiB five times, in pages of 4 KiB or of 2 MiB
    assert found["kept"] < found["usual"] / 20
    assert found["within"] > found["before"] + 100
    assert found["after"] < found["before"] + 20


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_environment_has_chosen_stays(name: str) -> None:
    value = "1000000" if name.startswith("MALLOC") else "glibc.malloc.trim_threshold=1000000"
    assert not _counted(**{name: value})["acts"]
