"""The floor of a step: forward, loss, backward and update in bf16 on tensors in memory; prints images per second.

    python benchmarks/speed/bare_step.py STEPS

Both views go through the network in one call, channels last, with the fused optimiser.
"""

from __future__ import annotations

import sys
import time

import torch
from step import BATCH, SIDE, WARM, network

from selftaught import objectives


def main(steps: int) -> None:
    model = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, fused=True)
    x = torch.randn(2 * BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    for turn in range(WARM + steps):
        if turn == WARM:
            began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            z1, z2 = model(x).chunk(2)
        objectives.simclr(z1, z2, temperature=0.5).backward()
        optimizer.step()
        optimizer.zero_grad()
    print(BATCH * steps / (time.perf_counter() - began))


if __name__ == "__main__":
    main(int(sys.argv[1]))
