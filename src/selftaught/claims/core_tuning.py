"""The claim of core-tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught import objectives
from selftaught.claims._comparison import FASHION, SMALL, Arm, Claim, Start
from selftaught.claims._facts import EXACT, Fact, apart, gradient, unit

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="core-tuning",
        says="With few labels, Core-tuning adapts a contrastive encoder better than cross-entropy, SupCon or Mixup.",
        data="fashion-mnist?n=300",
        judged_on=FASHION,
        start=Start("simclr", "fashion-mnist?n=12000", SMALL | {"epochs": 8, "batch_size": 128}),
        arms=(
            Arm("core-tuning", "core-tuning"),
            Arm("cross-entropy", "core-tuning", {"mode": "ce"}),
            Arm("cross-entropy + supcon", "core-tuning", {"mode": "ce+supcon"}),
            Arm("mixup", "core-tuning", {"mode": "mixup"}),
        ),
        common=SMALL | {"steps": 400, "batch_size": 64},
        score=("classify", "accuracy"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full={"data": "fashion-mnist?n=1000", "steps": 3000},
    )


def _pull(angle: float, focal: bool) -> float:
    """How strongly two of one class, an angle apart on the circle, are drawn together; other classes lie opposite."""

    def loss(turn: Tensor) -> Tensor:
        angles = torch.cat([turn, -turn, torch.tensor([3.0, -3.0], dtype=turn.dtype)])
        rows = torch.stack([angles.cos(), angles.sin()], 1)
        return objectives.focal_contrast(rows, torch.tensor([0, 0, 1, 2]), focal=focal, tau=0.5)

    return gradient(loss, torch.tensor([angle / 2], dtype=torch.float64)).abs().item()


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    easy, hard = (_pull(apart_by, True) / _pull(apart_by, False) for apart_by in (0.2, 1.4))
    z, labels = unit(32, 16), torch.arange(32) % 4
    plain = objectives.focal_contrast(z, labels, focal=False, normalisation="per-positive", tau=0.1)
    off = apart(plain, objectives.supcon(z, labels=labels, temperature=0.1))
    return Fact(
        "Without focal weights the contrast is SupCon's; with them a pair that is near already loses nearly all of its "
        "pull, and one that is far apart keeps the more of it.",
        {"deviation from SupCon": off, "pull kept, near pair": easy, "pull kept, far pair": hard},
        off < EXACT and easy < 0.1 and hard > 4 * easy,
    )
