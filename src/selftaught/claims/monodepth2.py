"""The claim of monodepth2."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import Fact
from selftaught.claims.robust_depth import SMALL

__all__ = ["claim", "fact"]


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


def fact() -> Fact:
    """What holds about its minimum and its mask, whatever the experiment shows."""
    g = torch.Generator().manual_seed(0)
    warped = 0.01 * torch.rand(1, 2, 16, 16, generator=g, dtype=torch.float64)
    warped[:, 0, :, :4] = 0.5  # hidden in the first frame, seen in the second
    still = torch.full_like(warped, 0.2)
    still[:, :, 8:] = 0.001  # nothing moves here: the frames as they stand fit better
    smallest, kept = objectives.minimum_reprojection(warped, still)
    mean, _ = objectives.minimum_reprojection(warped, average=True)
    numbers = {
        "hidden pixels, smallest error": smallest[:, :8, :4].mean().item(),
        "hidden pixels, mean error": mean[:, :8, :4].mean().item(),
        "pixels that move, kept": kept[:, :8].double().mean().item(),
        "pixels that stand still, kept": kept[:, 8:].double().mean().item(),
    }
    return Fact(
        "A pixel that one of two frames hides has no error by their minimum and half of it by their mean; pixels that "
        "fit without any motion are left out, those that move are kept.",
        numbers,
        numbers["hidden pixels, smallest error"] < 0.01
        and numbers["hidden pixels, mean error"] > 0.24
        and numbers["pixels that move, kept"] == 1.0
        and numbers["pixels that stand still, kept"] < 0.2,
    )
