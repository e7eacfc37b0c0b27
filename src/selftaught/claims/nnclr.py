"""The claim of nnclr."""

from __future__ import annotations

from torch import cat

from selftaught import objectives
from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart, both_ways, unit, views

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="nnclr",
        says="A nearest neighbour as the positive gives better features than another view of the same image.",
        data=FASHION,
        arms=(Arm("nnclr", "nnclr"), Arm("nnclr + dcl", "nnclr", {"objective": "dcl"}), Arm("simclr", "simclr")),
        common=SMALL | {"epochs": 8, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full=LONGER,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    z1, z2 = views(64)
    neighbours = [objectives.nearest(z, cat([z1, z2]))[0] for z in (z1, z2)]
    own = apart(objectives.nnclr(z1, z2, *neighbours, temperature=0.1), both_ways(z1, z2, 0.1) / 2)
    bank = unit(4096, 32, seed=9)
    gap, small = (1 - (z1 * objectives.nearest(z1, part)[0]).sum(1).mean().item() for part in (bank, bank[:64]))
    return Fact(
        "Where the view itself lies in the support set, NNCLR is InfoNCE; a larger support set has nearer neighbours.",
        {"deviation from InfoNCE": own, "distance to the neighbour of 64": small, "of 4,096": gap},
        own < EXACT and gap < small,
    )
