"""The claim of monodepth2."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims.robust_depth import SMALL

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="monodepth2",
        says="The smallest error over the frames and the automask give better depth than their mean without a mask.",
        data="room?train=10",
        arms=(
            Arm("monodepth2", "monodepth2"),
            Arm("mean, no automask", "monodepth2", {"average": True, "automask": False}),
            Arm("untrained", "monodepth2", {"steps": 1}),
        ),
        common=SMALL | {"steps": 150},
        score=("depth", "delta1"),
        also=(("depth", "abs_rel"), ("depth", "rmse")),
        full={"height": 96, "width": 128, "steps": 3000},
    )
