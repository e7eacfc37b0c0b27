"""The claim of infinite-lr."""

from __future__ import annotations

import math
from itertools import pairwise

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact
from selftaught.engine.schedules import infinite_lr

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it: digits 0 to 4, then 5 to 9."""
    return Claim(
        method="infinite-lr",
        says="An infinite schedule forgets less than a cosine that begins anew with every task.",
        data="digits",
        arms=(
            Arm("infinite", "infinite-lr", {"schedule": "infinite", "constant_lr": 0.25, "cooldown_end": 0.3}),
            Arm("repeated cosine", "infinite-lr", {"schedule": "cosine", "final_lr": 0.1, "warmup_epochs": 1.4}),
        ),
        common={
            "class_tasks": 2, "encoder": "vit-pico", "image_size": 8, "patch": 2, "decoder": "32-1-2", "steps": 250,
            "batch_size": 64, "anneal_lr": 0.1,
        },
        score=("tasks", "loss_kept"),
        also=(("tasks", "loss_last"), ("tasks", "average"), ("run", "seconds")),
        full={"data": "fashion-mnist", "class_tasks": 5, "image_size": 28, "patch": 4, "steps": 4000},
    )  # fmt: skip


def fact() -> Fact:
    """What holds of its rates, whatever the experiment shows."""
    first = [infinite_lr(n, 1000) for n in range(1001)]
    jumps = max(abs(a - b) for a, b in pairwise(first))
    middle = abs(infinite_lr(900, 1000) - math.sqrt(0.25 * 0.1))
    later = max(infinite_lr(n, 1000, task=1) for n in range(1001))
    return Fact(
        "The rate never jumps, is log-linear while annealed, and never rises above the constant one in later tasks.",
        {"largest jump": jumps, "deviation from log-linear": middle, "highest later rate": later},
        jumps <= 0.02 + EXACT and middle < EXACT and later <= 0.25,
    )
