"""The claim of supervised."""

from __future__ import annotations

from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="supervised",
        says="Labels give better features than an untrained encoder's: the yardstick measures something.",
        data=FASHION,
        arms=(Arm("supervised", "supervised"), Arm("untrained", "supervised", {"steps": 1, "lr": 0.0}, kind="random")),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER,
    )
