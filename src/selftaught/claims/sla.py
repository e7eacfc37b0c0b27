"""The claim of sla."""

from __future__ import annotations

import math

import torch

from selftaught import objectives
from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart, unit

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="sla",
        says="Joint labels of class and rotation beat rotation as augmentation or second task; aggregation adds to it.",
        data=FASHION,
        arms=(
            Arm("sla+ag", "sla", {"mode": "sla"}),
            Arm("sla, one copy (si)", "sla", {"mode": "sla", "inference": "single"}),
            Arm("sla+sd", "sla", {"mode": "sla+sd"}),
            Arm("data augmentation", "sla", {"mode": "da"}),
            Arm("multi-task", "sla", {"mode": "mt"}),
            Arm("baseline", "sla", {"mode": "baseline"}),
        ),
        common=SMALL | {"epochs": 4, "batch_size": 64},
        score=("classify", "accuracy"),
        full=LONGER,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    classes, copies = 10, 4
    labels = torch.arange(32) % classes
    u, v = (5 * unit(32 * copies, width, seed=width) for width in (classes, copies))
    joint = (u[:, :, None] + torch.zeros(copies, dtype=u.dtype)).flatten(1)
    added = (u[:, :, None] + v[:, None, :]).flatten(1)
    da = apart(objectives.sla(joint, labels), objectives.sla_da(u, labels) + math.log(copies))
    mt = apart(objectives.sla(added, labels), objectives.sla_mt(u, v, labels))
    return Fact(
        "Augmentation and multi-task learning are joint labels in chains: with joint logits that don't depend on the "
        "transformation the loss is augmentation's plus log M, with a sum of two parts it is that of multi-task "
        "learning.",
        {"deviation from augmentation + log M": da, "deviation from multi-task": mt},
        max(da, mt) < EXACT,
    )
