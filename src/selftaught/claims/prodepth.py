"""The claim of prodepth."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims.robust_depth import SMALL

__all__ = ["claim"]

MATCHING = {"bins": 12, "warm_start": True, "single_steps": 120}


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    Judged on what moves by itself in rendered rooms; both arms have the same stages, teacher and budget.
    """
    return Claim(
        method="prodepth",
        says="Mixing the cost volume with the single frame gives better depth where things move than ManyDepth's.",
        data="room?moving=3&train=10",
        arms=(
            Arm("prodepth", "prodepth", MATCHING),
            Arm("manydepth", "prodepth", MATCHING | {"modulation": "none", "reweighting": False, "consistency": 0.0}),
        ),
        common=SMALL | {"steps": 60},
        score=("depth", "delta1_moving"),
        also=(("depth", "abs_rel_moving"), ("depth", "delta1"), ("depth", "abs_rel")),
        full={"height": 96, "width": 128, "steps": 3000, "bins": 96},
    )
