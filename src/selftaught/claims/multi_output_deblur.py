"""The claim of multi-output-deblur."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    All arms learn from the same pictures for as many steps; the head is chosen on the tenth that is held out from all.
    ``best_overall`` is an oracle: it knows the sharp picture.
    """
    return Claim(
        method="multi-output-deblur",
        says="With four heads and their means, the best head of each picture and, less, the best single head deblur "
        "better than the same network with one output.",
        data="photos?test=2",
        arms=(
            Arm("K=4", "multi-output-deblur", {"heads": 4}),
            Arm("K=1", "multi-output-deblur", {"heads": 1}),
        ),
        common={"steps": 80, "batch_size": 8, "patch": 48},
        score=("heads", "best_overall"),
        also=(("heads", "best_single"), ("heads", "worst"), ("restoration", "psnr"), ("restoration", "ssim")),
        full={"steps": 3000},
    )
