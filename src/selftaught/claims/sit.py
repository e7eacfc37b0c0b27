"""The claim of sit."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper's ablation says, on digits of 32 pixels as in the sheet: mild views, never mirrored
    (a mirrored digit is none, or another)."""
    return Claim(
        method="sit",
        says="Restoring corrupted blocks and contrast together give better features than restoring alone, contrast "
        "alone, and no training.",
        data="digits",
        arms=(
            Arm("sit", "sit"),
            Arm("restoring alone (GMML)", "sit", {"contrast": False}),
            Arm("contrast alone", "sit", {"restore": False, "corrupt_most": 0.0}),
            Arm("untrained", "sit", {"steps": 1, "lr": 0.0}, kind="random"),
        ),
        common={
            "encoder": "vit-micro", "image_size": 32, "patch": 8, "steps": 240, "batch_size": 96, "augment": "mild",
            "projector": "128-128-64", "precision": "32", "workers": 0,
        },
        score=("knn", "accuracy"),
        also=(("run", "seconds"),),
        full={"data": "fashion-mnist", "steps": 4000, "augment": "grey", "crop": 0.4},
    )  # fmt: skip


def fact() -> Fact:
    """What holds of its loss, whatever the experiment shows."""
    same = torch.ones(16, 8, dtype=torch.float64)
    equal = abs(
        objectives.sit_contrastive(same, same, same, same).item() - 4 * 0.2 * torch.log(torch.tensor(16.0)).item()
    )
    clean, mask = torch.rand(2, 3, 4, 4, dtype=torch.float64), torch.zeros(2, 3, 4, 4)
    mask[0, :, 0], mask[1, :, :2] = 1, 1
    off = abs(objectives.sit_reconstruction(clean + 0.3, clean, mask).item() - 0.3)
    return Fact(
        "With all features equal the contrast is 4 tau log N; an even error c costs |c| whatever is hidden.",
        {"deviation of the contrast": equal, "deviation of the restoration": off},
        equal < 1e-6 and off < EXACT,
    )
