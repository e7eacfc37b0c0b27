"""The claim of amcl."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, gradient

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    fixed = {"temp_net": "fixed", "temperature": 0.2, "include_positive": True}
    return Claim(
        method="amcl",
        says="Several heads and a temperature for every pair improve SimCLR, the more so under many augmentations.",
        data=FASHION,
        arms=(
            Arm("amcl", "amcl"),
            Arm("simclr", "amcl", fixed | {"heads": 1}),
            Arm("three heads, fixed temperature", "amcl", fixed),
        ),
        conditions={"crop": {"transforms": "a"}, "crop, blur, grey, colour, flip": {"transforms": "abcde"}},
        common=SMALL | {"augment": "paper", "epochs": 3, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full=LONGER,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    s = torch.tensor([0.0, 0.3, 0.6, 0.9], dtype=torch.float64)
    beta, dim = 1.0, 32
    best = 2 * (beta - s) / (beta * dim)
    slope = gradient(lambda tau: (-s / tau + beta * objectives.amcl_omega(tau, dim)).sum(), best).abs().max().item()
    return Fact(
        "The temperature at which a pair costs least falls with how well the pair agrees: 2 (beta - s) / (beta d).",
        {"tau at s = 0": best[0].item(), "tau at s = 0.9": best[-1].item(), "slope there": slope},
        slope < EXACT and bool((best.diff() < 0).all()),
    )
