"""The claim of retfiner."""

from __future__ import annotations

import math

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim, Start
from selftaught.claims._facts import EXACT, Fact

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it, on generated slices."""
    return Claim(
        method="retfiner",
        says="Reports refine an encoder that was trained without them: a linear probe on it gets better.",
        data="bscans",
        start=Start(
            "simclr",
            "bscans",
            {"encoder": "cnn-small", "image_size": 32, "augment": "grey", "steps": 60, "batch_size": 64},
        ),
        arms=(
            Arm("refined", "retfiner"),
            Arm("contrast alone", "retfiner", {"losses": "itc"}),
            Arm("not refined", "retfiner", {"lr": 0.0, "steps": 1}),
        ),
        common={"steps": 400, "batch_size": 32},
        score=("linear", "balanced_accuracy"),
        also=(("linear", "auc"), ("knn", "accuracy")),
        full={"steps": 1000},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    flat, eye, n = torch.ones(8, 4, dtype=torch.float64), torch.eye(8, dtype=torch.float64), 8
    alike = abs(float(objectives.contrast_texts(flat, flat)) - math.log(n))
    s = 1 / 0.07
    log_z = math.log(math.exp(s) + n - 1)
    expected = log_z - (0.9 + 0.1 / n) * s
    apart = abs(float(objectives.contrast_texts(eye, eye)) - expected)
    tokens = torch.randint(106, 900, (64, 20), generator=torch.Generator().manual_seed(0))
    hidden, labels = objectives.mask_tokens(tokens, generator=torch.Generator().manual_seed(1))
    kept = float((hidden != tokens)[labels == -100].sum())
    own = float(objectives.negative_weights(torch.randn(8, 8, dtype=torch.float64))[0].diagonal().sum())
    off = {"all alike": alike, "orthonormal": apart, "changed without a label": kept, "a pair as its own negative": own}
    return Fact(
        "The contrast of pairs that all look alike is log N, that of orthonormal pairs the closed form with smoothing; "
        "only tokens that are asked for are hidden, and no pair is its own negative.",
        off,
        max(off.values()) < EXACT,
    )
