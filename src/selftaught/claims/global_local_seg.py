"""The claim of global-local-seg."""

from __future__ import annotations

import math

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact, gradient

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it: scans made of one brain's template."""
    return Claim(
        method="global-local-seg",
        says="Where slices lie, and what lies around a region, teach a network that needs few annotated volumes.",
        data="brain-scans?train=12&test=4&depth=12&side=24",
        arms=(
            Arm("G^D and L^R", "global-local-seg"),
            Arm("G^R (SimCLR)", "global-local-seg", {"global_strategy": "R", "local_strategy": "none"}),
            Arm("random weights", "global-local-seg", {"global_strategy": "none", "local_strategy": "none"}),
        ),
        conditions={f"{n} annotated": {"labelled_volumes": n} for n in (1, 2)},
        common={
            "preset": "laptop", "image_size": 24, "global_steps": 60, "local_steps": 20, "steps": 60,
            "finetune_batch": 10, "loggers": ["none"],
        },
        score=("dice", "dice"),
        also=(("slice-position", "accuracy"), ("run", "seconds")),
        full={"data": "brain-scans", "image_size": 64, "global_steps": 1000, "local_steps": 500, "steps": 1000},
    )  # fmt: skip


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    flat = torch.ones(24, 3, dtype=torch.float64)
    maps = torch.randn(2, 2, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    named = torch.zeros(48, 48, dtype=torch.bool)
    places = [objectives.region_corners(48), objectives.region_negatives(48).flatten(0, 1)]
    for y, x in torch.cat(places).tolist():
        named[y : y + 3, x : x + 3] = True
    z = torch.randn(24, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    off = {
        "alike, G^D- from 2 log 19": abs(float(objectives.global_domain_minus(flat)) - 2 * math.log(19)),
        "alike, L^R from log 11": abs(float(objectives.local_random(torch.ones_like(maps))) - math.log(11)),
        "one partition": float(objectives.global_domain(z, parts=1)),
        "gradient along a feature": float((gradient(objectives.global_domain, z) * z).sum(1).abs().max()),
        "gradient away from regions": float(gradient(objectives.local_random, maps)[:, :, ~named].abs().max()),
    }
    return Fact(
        "Slices that all look alike give log(1 + their negatives) a term, regions log 11; one partition has no "
        "negatives and teaches nothing; lengths and places outside the regions get no gradient.",
        off,
        max(off.values()) < EXACT,
    )
