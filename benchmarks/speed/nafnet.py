"""A training step of NAFNet-32 in its laptop form: ``selftaught.train`` against the bare step.

    python benchmarks/speed/nafnet.py [--steps 36] [--rounds 3]

NAFNet of width 32 with four heads and their pairwise means, stages 1-1-2, patches of 64, batch 8, end to end: pictures
are blurred as they are learned from. The bare step is forward, loss, backward, clipping and update of the same network
in the same precision and memory layout, on patches that lie in memory already. Each runs in a process of its own,
leaves its first steps out, and they take turns. Ours may be no slower than 95 % of the bare step.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import compared, machine, rounds, show, store
from peers import rate_of

import selftaught
from selftaught import methods, objectives

WARM, BATCH, PATCH = 4, 8, 64
FORM: dict[str, Any] = {
    "width": 32, "encoder": "1-1-2", "decoder": "1-1-1", "patch": PATCH, "kernel": 13, "shortest": 4.0, "head": "0",
}  # fmt: skip


def ours(steps: int, precision: str) -> float:
    """Patches per second of a run, as its own metrics say it."""
    with tempfile.TemporaryDirectory() as folder:
        run = selftaught.train(
            "multi-output-deblur", "photos:whole", out=f"{folder}/run", steps=steps + WARM, batch_size=BATCH,
            precision=precision, quiet=True, loggers=["none"], log_every=1, knn_every=0.0, seed=0, **FORM,
        )  # fmt: skip
        with run.layout.metrics.open(newline="") as file:
            rates = [float(row["per_second"]) for row in csv.DictReader(file)][WARM:]
    return len(rates) / sum(1 / rate for rate in rates)


def bare(steps: int, precision: str) -> float:
    """Patches per second of the step alone."""
    torch.manual_seed(0)
    network: Any = methods.get("multi-output-deblur")(channels=3, **FORM).network.train()
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.9), weight_decay=1e-3, fused=True)
    sharp = torch.rand(BATCH, 3, PATCH, PATCH).contiguous(memory_format=torch.channels_last)
    blurred = (sharp + torch.randn_like(sharp) / 10).clamp(0, 1)
    for turn in range(WARM + steps):
        if turn == WARM:
            began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            outputs = network.stages(blurred)
        objectives.multi_output_deblur(outputs, sharp).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad()
    return BATCH * steps / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("32", "bf16"), default="32")
    parser.add_argument("--only", choices=("ours", "bare"), help="one of them, here: prints its rate")
    options = parser.parse_args()
    if options.only:
        print({"ours": ours, "bare": bare}[options.only](options.steps, options.precision))
        return
    before, here = machine(), Path(__file__)

    def contender(name: str) -> Any:
        arguments = ("--only", name, "--steps", options.steps, "--precision", options.precision)
        return lambda: rate_of(here, *arguments)

    found = rounds({"selftaught train": contender("ours"), "bare step": contender("bare")}, options.rounds, warm=0)
    result = compared(found, "selftaught train")
    show("NAFNet-32, laptop form", result, "patches/s")
    work = f"NAFNet-32, stages 1-1-2, patches of {PATCH}, batch {BATCH}, end to end, patches per second"
    store("nafnet", {"work": work, "machine": before, "options": vars(options)} | result)


if __name__ == "__main__":
    sys.exit(main())
