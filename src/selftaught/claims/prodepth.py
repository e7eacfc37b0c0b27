"""The claim of prodepth."""

from __future__ import annotations

import torch

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import Fact
from selftaught.claims.robust_depth import SMALL
from selftaught.networks import modulate_cost_volume, single_frame_distribution

__all__ = ["claim", "fact"]

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


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    rng = torch.Generator().manual_seed(0)
    volume = 0.1 + torch.rand(1, 12, 5, 6, dtype=torch.float64, generator=rng)
    bins = torch.linspace(1, 12, 12, dtype=torch.float64)
    depth = 2 + 8 * torch.rand(1, 1, 5, 6, dtype=torch.float64, generator=rng)
    single = single_frame_distribution(bins, depth, torch.full_like(depth, 0.3))
    still, moving = torch.ones_like(depth), torch.zeros_like(depth)
    kept = modulate_cost_volume(volume, single, still).argmin(1)
    led = modulate_cost_volume(volume, single, moving).argmin(1)
    wrong_still = float((kept != volume.argmin(1)).sum())
    wrong_moving = float((led != (bins[None, :, None, None] - depth).abs().argmin(1)).sum())
    return Fact(
        "Where nothing moves the cheapest depth of the cost volume stays; where all moves it is the single frame's.",
        {"still pixels that change": wrong_still, "moving pixels that do not follow": wrong_moving},
        wrong_still == wrong_moving == 0,
    )
