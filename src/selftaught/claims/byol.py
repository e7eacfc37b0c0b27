"""The claim of byol."""

from __future__ import annotations

from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="byol",
        says="Without the predictor, predicting the momentum copy collapses.",
        data=FASHION,
        arms=(Arm("byol", "byol"), Arm("no predictor", "byol", {"predictor": "none"})),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )
