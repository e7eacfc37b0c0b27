"""The claim of scatsimclr."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    fixed = {"pretext": "none"}
    learnt = {"encoder": "resnet10-narrow", "stem": "standard", "pretext": "none"}
    return Claim(
        method="scatsimclr",
        says="With few images and steps, a fixed scattering transform under a small adapter beats a learnt network.",
        data="fashion-mnist?n=1000",
        arms=(
            Arm("scattering", "scatsimclr", fixed),
            Arm("scattering + rotation", "scatsimclr", {"pretext": "rotation"}),
            Arm("resnet (simclr)", "scatsimclr", learnt),
        ),
        common={"augment": "grey", "image_size": 32, "epochs": 12, "batch_size": 100},
        score=("fewlabel", "accuracy@10"),
        also=(("linear", "accuracy"), ("knn", "accuracy")),
        full={"data": "fashion-mnist?n=6000", "epochs": 60},
    )
