"""The claim of ibot, with MSN beside it."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import LONGER_VIT, TINY_VIT, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper's ablation says, and the smallest fair comparison that could show it."""
    return Claim(
        method="ibot",
        says="Masked patches beside the class token give better features than the class token's loss alone.",
        data="fashion-mnist?n=500",
        arms=(
            Arm("ibot", "ibot"),
            Arm("class token alone", "ibot", {"lambda2": 0.0, "mask_probability": 0.0}),
            Arm("msn", "msn"),
        ),
        common=TINY_VIT | {"steps": 60},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"), ("diagnostics", "effective_rank")),
        full=LONGER_VIT,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    g = torch.Generator().manual_seed(0)
    whole, teacher = (torch.randn(2, 3, 8, dtype=torch.float64, generator=g) for _ in range(2))
    student, target = (torch.randn(2, 3, 4, 8, dtype=torch.float64, generator=g) for _ in range(2))
    empty, mask = torch.zeros(2, 3, 4, dtype=torch.bool), torch.rand(2, 3, 4, generator=g) > 0.5
    none = apart(objectives.ibot(whole, teacher, student, target, empty), objectives.dino(whole, teacher))
    free = student.clone().requires_grad_()
    objectives.ibot_patches(free, target, mask).backward()
    visible = free.grad[~mask].abs().max().item() if free.grad is not None else 1.0
    return Fact(
        "Where nothing is hidden it is DINO, and visible patches get no gradient from the masked term.",
        {"apart from DINO": none, "gradient of visible patches": visible},
        none < EXACT and visible == 0,
    )
