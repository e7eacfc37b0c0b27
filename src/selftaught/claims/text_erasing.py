"""The claim of text-erasing."""

from __future__ import annotations

import torch

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact
from selftaught.objectives.text_erasing import erasing_hole, triplet_erasure
from selftaught.objectives.text_styling import erasing_difficulty_reward

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    The pictures have letters of their own, which are erased at the end; the arms draw more, styled by the policy that
    learns or by chance. Judged against the clean photographs, and by a text detector that none of them knows.
    """
    return Claim(
        method="text-erasing",
        says="Text that a learnt policy styles teaches more than text styled by chance.",
        data="photos:lettered?tile=64&train=40&test=1",
        arms=(
            Arm("learned", "text-erasing", {"policy": "learned"}),
            Arm("random", "text-erasing", {"policy": "random"}),
        ),
        common={"steps": 80, "batch_size": 2, "workers": 0},
        score=("restoration", "psnr"),
        also=(("residual-text", "erased"), ("residual-text", "f1"), ("restoration", "ssim")),
        full={"steps": 3000, "batch_size": 8, "data": "photos:lettered"},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    rng = torch.Generator().manual_seed(0)
    g, x, c = (torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=rng) for _ in range(3))
    m = (torch.rand(2, 1, 16, 16, dtype=torch.float64, generator=rng) > 0.5).double()
    mean = torch.tensor(0.03, dtype=torch.float64)
    peak = float((erasing_difficulty_reward(2 * mean[None], mean) - 5).abs())
    still = float(triplet_erasure(x, x, c).abs())
    outside = float(erasing_hole(m * x + (1 - m) * g, g, m).abs())
    return Fact(
        "The reward of difficulty is 5 at twice the mean error; the triplet loss of an unchanged input and the hole "
        "loss of what lies outside of the hole are 0.",
        {"deviation of the peak": peak, "triplet": still, "hole": outside},
        max(peak, still, outside) < EXACT,
    )
