"""``selftaught.train`` on CIFAR-sized tiles as a user calls it; prints images per second.

    python benchmarks/speed/selftaught_step.py STEPS [--compile]

A process of its own, as a user's is. The first steps, and the compilation within them, are left out.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from typing import Any

from step import BATCH, WARM, WIDTHS, pictures

import selftaught


def main(steps: int, compiled: bool) -> None:
    """Train and read the run's own metrics."""
    options: dict[str, Any] = {
        "preset": "cifar10", "projector": WIDTHS, "optimizer": "sgd", "steps": steps + WARM, "batch_size": BATCH,
        "knn_every": 0.0, "loggers": ["none"], "log_every": 1, "temperature": 0.5, "seed": 0, "compile": compiled,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = selftaught.train("simclr", pictures(4096), out=f"{folder}/run", quiet=True, **options)
        with run.layout.metrics.open(newline="") as file:
            rates = [float(row["per_second"]) for row in csv.DictReader(file)][WARM:]
    print(len(rates) / sum(1 / rate for rate in rates))


if __name__ == "__main__":
    main(int(sys.argv[1]), "--compile" in sys.argv)
