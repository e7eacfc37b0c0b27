"""CVRL's step with R3D-18 in laptop form (8 frames, 32 px, batch 32), end to end, against the bare step.

    python benchmarks/speed/clip_step.py [--steps 12] [--rounds 5]

``selftaught.train`` as a user calls it, on generated clips that are packed (``--cache``), against forward, loss,
backward and update on tensors in memory, with the same network, projector, optimiser and precision. Each runs in a
process of its own and leaves its first steps out. The limit is 95 % of the bare step.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import compared, machine, rounds, show, store
from peers import rate_of

import selftaught
from selftaught import catalog, methods, objectives

ENCODER, FRAMES, SIZE, BATCH = "resnet3d-18", 8, 32, 32
WARM = 3  # steps that are left out


def bare(steps: int) -> float:
    """Clips per second of the step alone, in bf16 as ``train`` does on such a processor."""
    options = catalog.presets("cvrl")["laptop"] | {"encoder": ENCODER}
    method = methods.get("cvrl")(**{k: v for k, v in options.items() if k not in ("steps", "batch_size")}).train()
    model = torch.nn.Sequential(method.encoder, method.projector)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    x = torch.randn(2 * BATCH, 3, FRAMES, SIZE, SIZE)
    began = 0.0
    for turn in range(WARM + steps):
        if turn == WARM:
            began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            z1, z2 = model(x).chunk(2)
        objectives.cvrl(z1, z2, temperature=0.1).backward()
        optimiser.step()
        optimiser.zero_grad()
    return BATCH * steps / (time.perf_counter() - began)


def ours(steps: int) -> float:
    """Clips per second of a run, by its own metrics."""
    options: dict[str, Any] = {
        "preset": "laptop", "encoder": ENCODER, "steps": steps + WARM, "batch_size": BATCH, "cache": True, "seed": 0,
        "knn_every": 0.0, "loggers": ["none"], "log_every": 1, "precision": "bf16",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SELFTAUGHT_CACHE"] = folder
        run = selftaught.train("cvrl", "motion", out=f"{folder}/run", quiet=True, **options)
        with run.layout.metrics.open(newline="") as file:
            rates = [float(row["per_second"]) for row in csv.DictReader(file)][WARM:]
    return len(rates) / sum(1 / rate for rate in rates)


def contender(name: str, steps: int) -> Callable[[], float]:
    """One of them, in a process of its own."""
    return lambda: rate_of(Path(__file__), "--only", name, "--steps", steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("ours", "bare"))
    options = parser.parse_args()
    if options.only:
        print((ours if options.only == "ours" else bare)(options.steps))
        return
    before = machine()
    contenders = {
        name: contender(kind, options.steps) for name, kind in (("selftaught train", "ours"), ("bare", "bare"))
    }
    run = compared(rounds(contenders, options.rounds, warm=0), "selftaught train")
    show("CVRL, R3D-18, 8 frames of 32x32, batch 32, end to end", run, "clips/s")
    result: dict[str, Any] = {"work": "CVRL, R3D-18, 8 frames of 32x32, batch 32, end to end, clips per second"}
    store("clip_step", result | {"machine": before, "rounds": options.rounds, "steps": options.steps} | run)


if __name__ == "__main__":
    main()
