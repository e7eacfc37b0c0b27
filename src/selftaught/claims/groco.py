"""The claim of groco."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import Fact

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="groco",
        says="Sorting positives above the hardest negatives makes better nearest neighbours than a softmax over all.",
        data=FASHION,
        arms=(
            Arm("groco", "groco"),
            Arm("simclr", "simclr"),
            Arm("nt-xent, same network", "groco", {"objective": "nt_xent", "temperature": 0.2}),
        ),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full=LONGER,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    scores = torch.tensor([0.1, 0.2, 0.29, 0.3], dtype=torch.float64)
    hard = -objectives.group_probability(scores, 3, steepness=1e6)[3].log().item()
    wrong = -objectives.group_probability(scores.flip(0), 3, steepness=1e3)[3].log().item()
    softmax = -(scores / 0.2).log_softmax(0)[3].item()
    return Fact(
        "Only order counts: with the positive a hundredth ahead of its hardest negative a steep network's loss is "
        "gone, while a softmax at temperature 0.2 goes on pushing; behind them the loss is large.",
        {"GroCo, steepness 1e6": hard, "softmax": softmax, "GroCo, positive last, steepness 1e3": wrong},
        hard < 1e-3 and softmax > 1 and wrong > 1,
    )
