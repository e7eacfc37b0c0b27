"""The claim of ssl-vit-survey."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """The pattern of the survey's tables, and the smallest fair comparison that could show it."""
    return Claim(
        method="ssl-vit-survey",
        says="With one transformer and budget a view-based method has the better frozen features, a masked one gains "
        "more from fine-tuning.",
        data="fashion-mnist?n=500",
        arms=(
            Arm("moco-v3 (views)", "moco-v3", {"predictor": "none"}),
            Arm("mae (masked)", "mae", {"decoder": "64-1-4", "pool": "token"}),
        ),
        common={
            "encoder": "vit-micro", "image_size": 32, "augment": "grey", "crop": 0.4, "optimizer": "adamw", "lr": 1e-3,
            "lr_scaling": "none", "weight_decay": 0.05, "warmup_epochs": 1.0, "steps": 200, "batch_size": 64,
            "precision": "32",
        },
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"), ("finetune", "accuracy")),
        judging={"recipe": "vit"},
        full={"data": "fashion-mnist?n=20000", "encoder": "vit-nano", "steps": 10000},
    )  # fmt: skip


def fact() -> Fact:
    """What holds exactly of the branches' losses, whatever the experiment shows."""
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 8, dtype=torch.float64, generator=g) for _ in range(2))
    patches, mask = torch.randn(2, 3, 4, 8, dtype=torch.float64, generator=g), torch.zeros(2, 3, 4, dtype=torch.bool)
    hybrid = objectives.ibot(student, teacher, patches, patches, mask)
    x, some = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=g), torch.rand(2, 4, 4, generator=g) > 0.5
    flat, hidden = x.flatten(2), torch.ones(2, 3, dtype=torch.bool)
    numbers = {
        "iBOT that hides nothing, from DINO": apart(hybrid, objectives.dino(student, teacher)),
        "SimMIM of an error of 0.3, from 0.3": abs(objectives.simmim(x + 0.3, x, some).item() - 0.3),
        "MAE of an error of 0.3, from 0.09": abs(
            objectives.mae(flat + 0.3, flat, hidden, norm_pix=False).item() - 0.09
        ),
    }
    small = all(value < (1e-6 if "SimMIM" in name else EXACT) for name, value in numbers.items())
    return Fact(
        "The hybrid is the view-based loss where nothing is hidden, and masked losses of a constant error are its size "
        "(SimMIM) or its square (MAE), whatever is hidden.",
        numbers,
        small,
    )
