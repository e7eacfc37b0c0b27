"""The claim of robust-depth."""

from __future__ import annotations

from typing import Any

from selftaught.claims._comparison import Arm, Claim, Start

__all__ = ["claim"]

SMALL: dict[str, Any] = {
    "encoder": "small", "pose_encoder": "small", "height": 32, "width": 64, "scales": 1, "lr": 2e-3, "batch_size": 8,
    "precision": "32",
}  # fmt: skip
"""Depth from video on two cores."""


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    All arms go on from one plain run, for as many steps: from scratch, altered frames take far longer to learn from
    than there is time for. Test frames are altered in ways of the evaluation's own, the same for all.
    """
    return Claim(
        method="robust-depth",
        says="Depth holds in bad weather better than by plain training or naive augmentation, clear frames no worse.",
        data="room?train=10",
        arms=(
            Arm("robust-depth", "robust-depth"),
            Arm("naive augmentation", "robust-depth", {"training": "naive"}),
            Arm("monodepth2", "monodepth2"),
        ),
        common=SMALL | {"steps": 70},
        score=("depth-weather", "delta1"),
        also=(("depth-weather", "abs_rel"), ("depth", "delta1"), ("depth", "abs_rel"), ("run", "seconds")),
        start=Start("monodepth2", "room?train=10", SMALL | {"steps": 150}),
        full={"height": 96, "width": 128, "steps": 3000},
    )
