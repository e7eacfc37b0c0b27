"""The claim of dino."""

from __future__ import annotations

from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="dino",
        says="Without centring the teacher's output collapses.",
        data=FASHION,
        arms=(Arm("dino", "dino"), Arm("no centring", "dino", {"centering": False})),
        common=SMALL | {"epochs": 8, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )
