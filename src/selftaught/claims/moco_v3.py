"""The claim of moco-v3."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from selftaught import objectives
from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart, both_ways, gradient, views

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="moco-v3",
        says="A momentum copy and a predictor give better features than plain contrast within the batch.",
        data=FASHION,
        arms=(Arm("moco-v3", "moco-v3"), Arm("simclr", "simclr")),
        common=SMALL | {"epochs": 10, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full=LONGER,
    )


def _across(slope: Tensor, z: Tensor) -> Tensor:
    """The part of a gradient that is orthogonal to the embeddings of length 1."""
    return slope - (slope * z).sum(1, keepdim=True) * z


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    z1, z2 = views(64)
    t, rows = 0.2, torch.arange(64)
    value = apart(objectives.moco_v3(z1, z2, z1, z2, temperature=t), 2 * t * both_ways(z1, z2, t))
    whole = gradient(lambda z: 2 * t * both_ways(z, z2, t), z1)
    query = gradient(lambda z: objectives.moco_v3(z, z2, z1, z2, temperature=t), z1)
    key = gradient(lambda z: 2 * t * cross_entropy(z2 @ z.T / t, rows), z1)
    inside = (query * z1).sum(1).abs().max().item()
    flat = _across(whole, z1) - _across(key, z1)
    return Fact(
        "With the keys of the views themselves its value is InfoNCE's between the two views, and its gradient "
        "InfoNCE's less what comes through the keys: a view is moved only as a query, never as another's negative.",
        {"deviation of the value": value}
        | {"deviation of the gradient": apart(query, flat), "gradient along the embedding": inside},
        apart(query, flat) < EXACT and inside < EXACT,
    )
