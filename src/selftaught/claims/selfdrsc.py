"""The claim of SelfDRSC."""

from __future__ import annotations

import torch

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart
from selftaught.networks.warping import reversed_flows

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    Pairs are made of a street's video, three frames a read-out, and judged on its last part: all three frames, and the
    middle one alone. The paper compares with IFED, the same network under clean frames; the mean of both pictures is
    what every arm begins with.
    """
    once = {"steps": 1, "flow_steps": 0}
    return Claim(
        method="selfdrsc",
        says="Learnt from rolling-shutter pairs alone, corrected frames come within about 1 dB of those of the same "
        "network that learnt from clean frames (IFED), and far above the mean of both pictures.",
        data="bikes?n=6",
        arms=(
            Arm("self-supervised", "selfdrsc", {}),
            Arm("IFED, clean frames", "selfdrsc", {"supervision": "gs"}),
            Arm("mean of both", "selfdrsc", once, kind="raw"),
        ),
        common={
            "preset": "laptop", "steps": 30, "flow_steps": 0, "distill_steps": 0, "batch_size": 4, "workers": 0,
        },
        judged_on="bikes",
        score=("restoration", "psnr middle"),
        also=(("restoration", "psnr"), ("restoration", "ssim"), ("restoration", "flicker")),
        full={"steps": 3000, "flow_steps": 500, "distill_steps": 300, "batch_size": 4, "data": "bikes"},
    )  # fmt: skip


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    rng = torch.Generator().manual_seed(0)
    motion = torch.tensor([2.3, -1.6], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 24, 28)
    times = torch.rand(1, 1, 24, 28, dtype=torch.float64, generator=rng)
    to_start, to_end = reversed_flows(motion, -motion, times)
    inner = (slice(None), slice(None), slice(4, -4), slice(5, -5))
    first = apart(to_start[inner], (-times * motion)[inner])
    second = apart(to_end[inner], ((1 - times) * motion)[inner])
    return Fact(
        "Under a constant motion the reversed flows are exact whatever the time of each pixel.",
        {"deviation of the flow to the start": first, "to the end": second},
        max(first, second) < EXACT,
    )
