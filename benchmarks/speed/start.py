"""How long one waits: ``selftaught --help``, a method's card, and the first training batch after the start.

    python benchmarks/speed/start.py [--rounds 5]

Every case is a process of its own; the first round, which fills the file system's cache, does not count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

from common import machine, spread, store, timed

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
    "import torch alone": ["-c", "import torch"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    result: dict[str, Any] = {"work": "seconds from the start of the process", "machine": machine()}
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for turn in range(options.rounds + 1):
        for name, arguments in CASES.items():
            spent = timed(lambda a=arguments: subprocess.run([sys.executable, *a], check=True, capture_output=True))
            if turn:
                seconds[name].append(spent)
    result["seconds"] = {name: spread(values) for name, values in seconds.items()}
    for name, values in result["seconds"].items():
        print(f"  {name:30s} {values['median']:7.3f} s ({values['min']:.3f}-{values['max']:.3f})")
    store("start", result)


if __name__ == "__main__":
    main()
