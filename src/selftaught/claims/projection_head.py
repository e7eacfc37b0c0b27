"""The claim of projection-head."""

from __future__ import annotations

import torch
from torch import nn

from selftaught import objectives
from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import Fact, gradient, unit

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="projection-head",
        says="Trained on coarse labels, the features before the head keep the fine classes that those after it lose.",
        data=FASHION,
        arms=(
            Arm("before the head", "projection-head"),
            Arm("after the head", "projection-head", {"layer": "post"}),
            Arm("no head", "projection-head", {"head": "none"}),
        ),
        common=SMALL
        | {"objective": "supcon", "temperature": 0.1, "coarse": "0-0-0-0-0-1-1-1-1-1", "epochs": 10, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    head = nn.Linear(16, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2, 16, dtype=torch.float64))
    h = unit(64, 16)
    kept = gradient(lambda x: objectives.simclr(head(x), head(x.flip(0)), temperature=0.5), h)
    return Fact(
        "What a head drops gets no gradient: behind a head onto 2 of 16 features the other 14 are not touched by the "
        "loss, and stay in the features before it.",
        {"gradient on the kept": kept[:, :2].abs().max().item(), "on the dropped": kept[:, 2:].abs().max().item()},
        kept[:, :2].abs().max().item() > 1e-6 and kept[:, 2:].abs().max().item() == 0,
    )
