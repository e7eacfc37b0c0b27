"""The claim of barlow-twins."""

from __future__ import annotations

from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="barlow-twins",
        says="Both terms are needed: with the invariance term alone the embedding collapses.",
        data=FASHION,
        arms=(
            Arm("both terms", "barlow-twins"),
            Arm("invariance only", "barlow-twins", {"terms": "invariance"}),
            Arm("redundancy only", "barlow-twins", {"terms": "redundancy"}),
        ),
        common=SMALL | {"epochs": 5, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )
