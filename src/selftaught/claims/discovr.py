"""The claim of discovr."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import Fact

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper's ablation says, and the smallest fair comparison that could show it, on generated clips."""
    return Claim(
        method="discovr",
        says="With clusters from an image branch a video encoder knows weak hearts better "
        "than with the video term alone.",
        data="ultrasound?label=ejection&train=400&test=300",
        arms=(
            Arm("discovr", "discovr"),
            Arm("video term alone", "discovr", {"scd_weight": 0.0, "image_weight": 0.0}),
        ),
        common={"steps": 90},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"), ("diagnostics", "effective_rank")),
        full={"data": "ultrasound?label=ejection&train=4000&test=1000", "steps": 4000},
    )


def fact() -> Fact:
    """What holds about its cluster distillation, whatever the experiment shows."""
    agreement = {f"agreement, {name}": _agreement(shuffled) for name, shuffled in (("paired", 0), ("unpaired", 1))}
    video, image, rows = (torch.randn(1, n, 8, dtype=torch.float64, requires_grad=True) for n in (6, 6, 5))
    terms = objectives.cluster_distillation_terms(video, image, rows[0])
    silent = not terms["image_term"].requires_grad
    paired, unpaired = agreement.values()
    return Fact(
        "Video tokens that are free to move take the clusters of their image tokens, and learn nothing where the pairs "
        "change at every step; all of it comes from the second term, for the first has no gradient.",
        agreement | {"gradient of the first term": 0.0 if silent else 1.0},
        paired > 0.8 and unpaired < 0.3 and silent,
    )


def _agreement(shuffled: int) -> float:
    """Share of 32 free tokens that end in their partner's cluster, after 200 steps of Adam."""
    g = torch.Generator().manual_seed(0)
    image = objectives.standardised_tokens(torch.randn(1, 32, 32, generator=g))
    video, prototypes = (torch.randn(*shape, generator=g).requires_grad_() for shape in ((1, 32, 32), (20, 32)))
    optimizer = torch.optim.Adam([video, prototypes], lr=0.05)
    for _ in range(200):
        order = torch.randperm(32, generator=g) if shuffled else torch.arange(32)
        optimizer.zero_grad()
        objectives.cluster_distillation(video, image[:, order], prototypes).backward()
        optimizer.step()
    return objectives.cluster_distillation_terms(video, image, prototypes)["agreement"].item()
