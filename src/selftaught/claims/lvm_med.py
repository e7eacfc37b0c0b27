"""The claim of lvm-med."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, unit

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="lvm-med",
        says="Matching relations between images too (second order) gives better features than matching images alone.",
        data=FASHION,
        arms=(Arm("second order", "lvm-med"), Arm("first order", "lvm-med", {"second_order": False})),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    draws, hits = 20, {"exhaustive": 0.0, "assignment": 0.0}
    for seed in range(draws):
        z = unit(6, 8, seed=seed)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        copy = z[order.argsort()]
        graphs = [objectives.knn_edges(part, 3) for part in (z, copy)]
        edges = objectives.edge_affinity(z, copy, *graphs)
        for solver in hits:
            found = objectives.match_graphs(torch.zeros(6, 6, dtype=z.dtype), edges, *graphs, solver=solver)
            hits[solver] += (found == order).double().mean().item() / draws
    return Fact(
        "From relations alone, without any likeness of the images, second-order matching recovers a relabelled copy of "
        "a graph in every draw; first-order matching has nothing to go by.",
        {"right, second order": hits["exhaustive"], "right, first order": hits["assignment"], "draws": float(draws)},
        hits["exhaustive"] > 1 - EXACT and hits["assignment"] < 0.5,
    )
