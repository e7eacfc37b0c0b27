"""The claim of vicreg."""

from __future__ import annotations

from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="vicreg",
        says="The variance term is what prevents collapse.",
        data=FASHION,
        arms=(Arm("vicreg", "vicreg"), Arm("no variance term", "vicreg", {"variance": 0.0})),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )
