"""The claim of mae."""

from __future__ import annotations

from selftaught.claims._comparison import LONGER, Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper's ablation says, and the smallest fair comparison that could show it."""
    return Claim(
        method="mae",
        says="Hiding three quarters of the patches teaches better features than hiding a quarter.",
        data="digits",
        arms=(Arm("mae", "mae"), Arm("a quarter hidden", "mae", {"mask_ratio": 0.25})),
        common={
            "encoder": "vit-pico", "image_size": 8, "patch": 2, "augment": "none", "decoder": "32-1-2", "steps": 300,
            "batch_size": 64, "warmup_epochs": 1.0,
        },
        score=("knn", "accuracy"),
        also=(("run", "seconds"),),
        full=LONGER | {"encoder": "vit-nano", "image_size": 28, "patch": 4, "decoder": "64-2-4"},
    )  # fmt: skip
