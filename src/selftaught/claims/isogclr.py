"""The claim of isogclr."""

from __future__ import annotations

import math

import torch
from torch import Tensor, cat
from torch.nn.functional import normalize

from selftaught import objectives
from selftaught.claims._comparison import FASHION, SMALL, Arm, Claim
from selftaught.claims._facts import Fact, unit

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="isogclr",
        says="On long-tailed data, a temperature per image beats one fixed temperature (SogCLR, SimCLR).",
        data="fashion-mnist?n=24000&imbalance=0.01",
        judged_on=FASHION,
        arms=(
            Arm("isogclr", "isogclr"),
            Arm("sogclr", "isogclr", {"temperatures": "fixed"}),
            Arm("simclr", "simclr"),
        ),
        common=SMALL | {"epochs": 10, "batch_size": 128, "temperature": 0.2},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist?imbalance=0.01", "epochs": 60},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    crowd = normalize(unit(1, 32) + 0.6 * unit(24, 32, seed=1), dim=1)
    z = cat([crowd, unit(40, 32, seed=2)])
    state: dict[str, Tensor] = {"tau": torch.full((64,), 0.3, dtype=z.dtype)}
    for _ in range(2000):
        found = objectives.isogclr_terms(z, z, **state, gamma=0.9, beta_u=0.9, rho=0.4, eta=0.01)
        state = {name: found[name] for name in ("tau", "s", "u")}
    same = torch.eye(64, dtype=torch.bool).repeat(1, 2)
    weights = (z @ cat([z, z]).T / state["tau"][:, None]).masked_fill(same, -math.inf).softmax(1)
    gap = (torch.special.xlogy(weights, weights * 126).sum(1) - 0.4).abs().max().item()
    crowded, alone = state["tau"][:24].mean().item(), state["tau"][24:].mean().item()
    return Fact(
        "An image's temperature settles where the weights of its negatives are rho (here 0.4) from uniform in KL: "
        "images with many look-alikes end at higher temperatures, all at the same hardness.",
        {"mean tau of 24 look-alikes": crowded, "mean tau of 40 others": alone, "largest gap of a KL to rho": gap},
        gap < 0.01 and crowded > 1.2 * alone,
    )
