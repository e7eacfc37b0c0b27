"""The claim of mae."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import LONGER, Arm, Claim
from selftaught.claims._facts import EXACT, Fact

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper's ablation says, and the smallest fair comparison that could show it."""
    return Claim(
        method="mae",
        says="Hiding three quarters of the patches teaches better features than hiding a quarter.",
        data="digits",
        arms=(Arm("mae", "mae"), Arm("a quarter hidden", "mae", {"mask_ratio": 0.25})),
        common={
            "encoder": "vit-pico", "image_size": 8, "patch": 2, "augment": "none", "decoder": "32-1-2", "steps": 300,
            "batch_size": 64, "warmup_epochs": 1.0,
        },
        score=("knn", "accuracy"),
        also=(("run", "seconds"),),
        full=LONGER | {"encoder": "vit-nano", "image_size": 28, "patch": 4, "decoder": "64-2-4"},
    )  # fmt: skip


def fact() -> Fact:
    """What holds exactly about its loss, whatever the experiment shows."""
    generator = torch.Generator().manual_seed(0)
    prediction, patches = (torch.randn(4, 9, 12, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(4, 9, generator=generator) > 0.25
    live = prediction.requires_grad_()
    (slope,) = torch.autograd.grad(objectives.mae(live, patches, mask), live)
    seen = slope[~mask].abs().max().item()
    lit = objectives.mae(prediction, 3 * patches + 2, mask) - objectives.mae(prediction, patches, mask)
    return Fact(
        "Visible patches teach nothing, and brightness and contrast of a patch have no part in what is restored.",
        {"largest gradient of a visible patch": seen, "change under contrast and brightness": abs(lit.item())},
        seen < EXACT and abs(lit.item()) < 1e-4,
    )
