"""The claim of mae."""

from __future__ import annotations

from selftaught.claims._comparison import FASHION, LONGER, Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper's ablation says, and the smallest fair comparison that could show it."""
    return Claim(
        method="mae",
        says="Hiding three quarters of the patches teaches better features than hiding a quarter.",
        data=FASHION,
        arms=(Arm("mae", "mae"), Arm("a quarter hidden", "mae", {"mask_ratio": 0.25})),
        common={"image_size": 28, "patch": 4, "steps": 400, "batch_size": 128, "warmup_epochs": 1.0},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"), ("run", "seconds")),
        full=LONGER,
    )
