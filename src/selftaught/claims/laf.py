"""The claim of LAF."""

from __future__ import annotations

import math
from typing import Any

import torch

from selftaught.claims._comparison import Arm, Claim, Start
from selftaught.claims._facts import EXACT, Fact
from selftaught.objectives.laf import laf_phi, laf_ra, laf_ra_terms

__all__ = ["claim", "fact"]

_SMALL: dict[str, Any] = {"encoder": "cnn-small", "image_size": 16, "augment": "grey", "crop": 0.8, "batch_size": 64}


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="laf",
        says="Without a label LAF comes as near to training anew without the forgotten samples as methods with labels.",
        data="digits",
        start=Start("supervised", "digits", _SMALL | {"steps": 400}),
        arms=(
            Arm("laf", "laf"),
            Arm("retrain", "laf", {"mode": "retrain", "steps": 400}),
            Arm("original", "laf", {"mode": "fine-tune", "steps": 1}, kind="original"),
            Arm("fine-tune", "laf", {"mode": "fine-tune"}),
            Arm("negative gradient", "laf", {"mode": "negative-gradient"}),
            Arm("random label", "laf", {"mode": "random-label"}),
            Arm("bad teacher (no labels)", "laf", {"mode": "bad-teacher"}),
        ),
        common={"steps": 200},
        conditions={
            "a class": {"forget": "class=3"},
            "40 % of five classes": {"forget": "class=5,6,7,8,9:0.4"},
        },
        score=("unlearning", "tug_of_war"),
        also=(
            ("unlearning", "forget"),
            ("unlearning", "remain"),
            ("unlearning", "test"),
            ("unlearning", "attack"),
            ("run", "seconds"),
        ),
        full={"steps": 1500},
        reference="retrain",
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    rng = torch.Generator().manual_seed(0)
    r, f, s, t = (torch.randn(n, 16, dtype=torch.float64, generator=rng) for n in (32, 8, 32, 8))
    off = abs(float(laf_ra(r, r, f, f)) + 32 * math.log(8))
    flat = abs(float(laf_phi(torch.zeros(1, dtype=torch.float64))) - 1)
    kept, gone = r.clone().requires_grad_(), f.clone().requires_grad_()
    before = laf_ra_terms(kept, s, gone, t, temperature=20.0)
    down, away = torch.autograd.grad(before["loss"], (kept, gone))
    after = laf_ra_terms(kept - 0.01 * down, s, gone - 0.01 * away, t, temperature=20.0)
    nearer, farther = (float((after[side] - before[side]).detach()) for side in ("remain", "forget"))
    return Fact(
        "No label enters; where the student still is the teacher alignment is -N log M and a perfect reconstruction "
        "counts 1; a step down it brings what stays nearer to where it was and sends what goes away.",
        {"deviation": max(off, flat), "change of distance, kept": nearer, "forgotten": farther},
        max(off, flat) < EXACT and nearer < 0 < farther,
    )
