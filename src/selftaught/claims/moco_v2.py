"""The claim of moco-v2."""

from __future__ import annotations

import math

import torch
from torch import nn

from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import Fact
from selftaught.engine.ema import MovingAverage

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="moco-v2",
        says="Keys must come from a network that moves slowly: without momentum the queue is inconsistent.",
        data=FASHION,
        arms=(Arm("moco-v2", "moco-v2"), Arm("no momentum", "moco-v2", {"target_decay": 0.0})),
        common=SMALL | {"epochs": 10, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"), ("diagnostics", "effective_rank")),
        full=LONGER,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    generator, momentum = torch.Generator().manual_seed(0), 0.9
    network = nn.Linear(4000, 1, bias=False, dtype=torch.float64)
    keys = MovingAverage(network, momentum)
    (slow,) = keys.average.parameters()
    moved = []
    for _ in range(200):
        before = slow.clone()
        with torch.no_grad():
            network.weight += torch.randn(1, 4000, generator=generator, dtype=torch.float64)
        keys.update(network)
        moved.append((slow - before).square().mean())
    seen = torch.stack(moved[100:]).mean().sqrt().item()
    told = math.sqrt((1 - momentum) / (1 + momentum))
    return Fact(
        "Under random steps of length 1 the momentum network makes steps of length sqrt((1 - m)/(1 + m)): the keys of "
        "a queue were made by networks that differ by that much less from one batch to the next; without momentum (m = "
        "0) it is 1.",
        {"length seen, m = 0.9": seen, "sqrt((1 - m)/(1 + m))": told},
        abs(seen / told - 1) < 0.02,
    )
