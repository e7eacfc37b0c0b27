"""The claim of seer."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import FASHION, SMALL, Arm, Claim
from selftaught.claims._facts import Fact, apart, unit

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="seer",
        says="On an unbalanced stream, clusters sized by a power law beat clusters of equal size.",
        data="fashion-mnist?n=24000&imbalance=0.01",
        judged_on=FASHION,
        arms=(
            Arm("power law", "seer", {"power_law": 0.5}),
            Arm("equal partition", "seer"),
            Arm("swav", "swav"),
        ),
        common=SMALL | {"epochs": 5, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist?imbalance=0.01", "epochs": 30},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    scores = unit(512, 16) @ unit(8, 16, seed=1).T
    masses, moved = {}, {}
    shift = torch.linspace(0, 1, 8, dtype=torch.float64)
    for name, power in (("equal", 0.0), ("power law", 0.5)):
        codes = [objectives.sinkhorn(s, eps=0.2, iters=500, power_law=power) for s in (scores, scores + shift)]
        wanted = torch.arange(1, 9, dtype=torch.float64) ** -power
        masses[name] = apart(codes[0].mean(0), wanted / wanted.sum())
        moved[name] = apart(codes[0], codes[1])
    return Fact(
        "Sinkhorn gives every prototype the share that the prior says, to the last digit, and what is added to all "
        "scores of a prototype changes nothing: the sizes of clusters are the prior's alone, not the data's.",
        {"share against 1/K": masses["equal"], "share against the power law": masses["power law"]}
        | {"change by a constant per prototype": max(moved.values())},
        max(*masses.values(), *moved.values()) < 1e-6,
    )
