"""The claim of simsiam."""

from __future__ import annotations

from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="simsiam",
        says="The stop-gradient is what prevents collapse.",
        data=FASHION,
        arms=(Arm("simsiam", "simsiam"), Arm("no stop-gradient", "simsiam", {"stop_gradient": False})),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )
