"""The claim of mixed-barlow-twins."""

from __future__ import annotations

import torch

from selftaught.claims._comparison import SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, views

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="mixed-barlow-twins",
        says="With few data, long training and a wide embedding, mixed samples keep Barlow Twins from overfitting.",
        data="fashion-mnist?n=2000",
        arms=(Arm("mixed", "mixed-barlow-twins"), Arm("plain", "mixed-barlow-twins", {"lambda_reg": 0.0})),
        common=SMALL | {"epochs": 40, "batch_size": 128, "projector": "512-1024"},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"), ("diagnostics", "effective_rank")),
        full={"epochs": 400},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    generator = torch.Generator().manual_seed(0)
    x1, x2 = (3 * x for x in views(256, 16))
    other, alpha = torch.randperm(256, generator=generator), 0.4
    linear = torch.randn(16, 24, generator=generator, dtype=torch.float64)
    found = {}
    for name in ("linear", "with ReLU"):
        z = [x @ linear for x in (x1, x2, alpha * x1 + (1 - alpha) * x2[other])]
        z = z if name == "linear" else [each.relu() for each in z]
        gap = z[2] - (alpha * z[0] + (1 - alpha) * z[1][other])
        found[name] = gap.abs().max().item()
    return Fact(
        "What the regularisation asks for, that the embedding of a mixture be the mixture of the embeddings, holds of "
        "every linear network and fails with the first ReLU.",
        {"gap, linear": found["linear"], "gap, with ReLU": found["with ReLU"]},
        found["linear"] < EXACT < 1e-2 < found["with ReLU"],
    )
