"""The claim of swav."""

from __future__ import annotations

from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="swav",
        says="The equal partition of the samples is what prevents collapse.",
        data=FASHION,
        arms=(Arm("swav", "swav"), Arm("no equal partition", "swav", {"iters": 0})),
        common=SMALL | {"epochs": 8, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )
