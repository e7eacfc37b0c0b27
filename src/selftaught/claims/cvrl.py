"""The claim of cvrl."""

from __future__ import annotations

import numpy as np

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import Fact
from selftaught.views import clip_starts, draw_interval

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper's ablations say, and the smallest fair comparison that could show it, on generated motion."""
    return Claim(
        method="cvrl",
        says="Two clips that start near each other more often teach more about motion than clips at any distance or "
        "one clip twice, and frames must be augmented alike.",
        data="motion?train=240&test=200&side=16",
        arms=(
            Arm("decreasing", "cvrl"),
            Arm("uniform", "cvrl", {"interval": "uniform"}),
            Arm("same clip", "cvrl", {"interval": "same"}),
            Arm("per frame", "cvrl", {"consistent": False}),
        ),
        common={"augment": "crop", "image_size": 16, "steps": 100, "batch_size": 12},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"), ("diagnostics", "effective_rank")),
        full={"data": "motion?train=2000&test=1000", "image_size": 32, "steps": 2000, "batch_size": 32},
    )


def fact() -> Fact:
    """What holds exactly about its sampler, whatever the experiment shows."""
    rng = np.random.default_rng(0)
    means = {}
    for power in (0.5, 1.0, 2.0, 8.0):
        drawn = draw_interval(*rng.random((2, 100_000)), 1.0, power)
        means[power] = (float(drawn.mean()), (power + 1) / (2 * (power + 2)))
    starts = np.array([clip_starts(row, 250, 16, 2) for row in rng.random((20_000, 4))])
    delta = np.abs(np.diff(starts, axis=1)).mean() / (250 - 30)
    told = {f"mean interval, p = {power:g}": seen for power, (seen, _) in means.items()}
    exact = all(abs(seen / expected - 1) < 0.01 for seen, expected in means.values())
    return Fact(
        "The interval has the mean (p + 1) / (2 (p + 2)) of the longest one, a third for p = 1, and tends to the even "
        "distribution's half as p grows; of a video of 250 frames it is that of whole frames.",
        told | {"whole frames, p = 1": float(delta)},
        bool(exact and abs(delta - 1 / 3) < 0.01),
    )
