"""The claim of supcon."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart, gradient, views

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="supcon",
        says="With the same labels, contrast learns better features than cross-entropy.",
        data=FASHION,
        arms=(Arm("supcon", "supcon"), Arm("cross-entropy", "supervised")),
        common=SMALL | {"epochs": 10, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    z1, z2 = views(64)
    alone = objectives.supcon(z1, z2, labels=torch.arange(64), temperature=0.2)
    same = apart(alone, objectives.simclr(z1, z2, temperature=0.2))
    simplex = torch.eye(8, dtype=torch.float64) - 1 / 8
    labels = torch.arange(64) % 8
    slope = gradient(lambda z: objectives.supcon(z, z, labels=labels, temperature=0.2), simplex[labels])
    return Fact(
        "With a class for every image it is SimCLR's loss; with classes it comes to rest where each class is one point "
        "and the points are equally far apart, as cross-entropy does.",
        {"deviation from SimCLR": same, "largest slope there": slope.abs().max().item()},
        same < EXACT and slope.abs().max().item() < EXACT,
    )
