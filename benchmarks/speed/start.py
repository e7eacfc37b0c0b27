"""How long one waits: ``selftaught --help``, a method's card, and the first training batch after the start.

    python benchmarks/speed/start.py [--rounds 5]

Every case is a process of its own; the first round, which fills the file system's cache, does not count. Help and card
are timed to the end of the process, the others to the moment at which what they wait for is there. The packages alone
are the floor of a first batch.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

from common import machine, spread, store

FIRST_BATCH = """
from selftaught import DataModule, methods
method = methods.SimCLR(encoder="resnet18", image_size=64, augment="small")
next(iter(DataModule({data!r}, method, batch_size=64).train_dataloader()))
"""

CASES = {
    "selftaught --help": ["-m", "selftaught", "--help"],
    "selftaught methods dcl": ["-m", "selftaught", "methods", "dcl"],
    "first batch, photos": ["-c", FIRST_BATCH.format(data="photos")],
    "first batch, fashion-mnist": ["-c", FIRST_BATCH.format(data="fashion-mnist")],
    "import torch, lightning, timm": ["-c", "import torch, lightning, timm"],
    "import torch alone": ["-c", "import torch"],
}
THERE = "\nprint(flush=True)"


def seconds_of(arguments: list[str]) -> float:
    """Seconds to the end of a command, or to the end of a snippet: not what Python takes apart after it."""
    flag, code, *rest = arguments
    snippet = flag == "-c"
    began = time.perf_counter()
    command = [sys.executable, flag, code + THERE if snippet else code, *rest]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        _ = process.stdout.readline() if snippet else process.stdout.read()
        spent = time.perf_counter() - began
        _, error = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{arguments} failed: {error}")
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    result: dict[str, Any] = {"work": "seconds from the start of the process", "machine": machine()}
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for turn in range(options.rounds + 1):
        for name, arguments in CASES.items():
            spent = seconds_of(arguments)
            if turn:
                seconds[name].append(spent)
    result["seconds"] = {name: spread(values) for name, values in seconds.items()}
    for name, values in result["seconds"].items():
        print(f"  {name:30s} {values['median']:7.3f} s ({values['min']:.3f}-{values['max']:.3f})")
    store("start", result)


if __name__ == "__main__":
    main()
