"""The claim of discovr."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper's ablation says, and the smallest fair comparison that could show it, on generated clips."""
    return Claim(
        method="discovr",
        says="With clusters from an image branch a video encoder knows weak hearts better than with video alone.",
        data="ultrasound?label=ejection&train=600&test=400",
        arms=(
            Arm("discovr", "discovr"),
            Arm("video term alone", "discovr", {"scd_weight": 0.0, "image_weight": 0.0}),
        ),
        common={"steps": 150},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"), ("diagnostics", "effective_rank")),
        full={"data": "ultrasound?label=ejection&train=4000&test=1000", "steps": 4000},
    )
