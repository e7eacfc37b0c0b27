"""The claim of maskfeat, with SimMIM and BEiT beside it."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import LONGER_VIT, TINY_VIT, Arm, Claim
from selftaught.claims._facts import Fact, apart

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="maskfeat",
        says="Gradient histograms are a better thing to predict of a hidden patch than pixels or visual words.",
        data="fashion-mnist?n=500",
        arms=(
            Arm("maskfeat", "maskfeat"),
            Arm("simmim (pixels)", "simmim"),
            Arm("beit (words)", "beit", {"words": 128, "tokeniser_steps": 10}),
        ),
        common=TINY_VIT | {"steps": 60, "mask": "block", "mask_ratio": 0.4},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER_VIT,
    )


def fact() -> Fact:
    """What holds of its targets, whatever the experiment shows."""
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = objectives.hog_targets(x)
    same = apart(objectives.hog_targets(3 * x + 0.5), plain)
    negative = apart(objectives.hog_targets(1 - x), plain)
    return Fact(
        "Its targets don't change with brightness and contrast, nor when the image turns into its negative; pixels do.",
        {"of another contrast": same, "of the negative": negative},
        max(same, negative) < 1e-9,
    )
