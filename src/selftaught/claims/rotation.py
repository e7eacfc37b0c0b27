"""The claim of rotation, with jigsaw and relative position beside it."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import LONGER_VIT, TINY_VIT, Arm, Claim
from selftaught.claims._facts import EXACT, Fact
from selftaught.views import transformations

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="rotation",
        says="Predicting rotations gives better features than puzzles and relative positions of tiles.",
        data="fashion-mnist?n=500",
        arms=(
            Arm("rotation", "rotation"),
            Arm("jigsaw", "jigsaw", {"permutations": 100}),
            Arm("relative-position", "relative-position"),
        ),
        common=TINY_VIT | {"steps": 60},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER_VIT,
    )


def fact() -> Fact:
    """What holds of its question, whatever the experiment shows."""
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    copies = transformations.copies(x, "rotation").unflatten(0, (3, 4))
    back = torch.stack([torch.rot90(copies[:, y], -y, (2, 3)) for y in range(4)], 1)
    left = (back - x[:, None]).abs().max().item()
    symmetric = torch.zeros(12, 4, dtype=torch.float64)
    chance = objectives.rotation(symmetric).item() - torch.tensor(4.0, dtype=torch.float64).log().item()
    return Fact(
        "Turning back gives the image to the bit: no corner and no interpolation tells the turn. Of images that look "
        "the same in all four positions nothing can be learnt: the loss stays log 4.",
        {"left after turning back": left, "loss of equal answers less log 4": abs(chance)},
        left == 0 and abs(chance) < EXACT,
    )
