"""The claim of genview."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart, unit

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="genview",
        says="Views of generated variants, and weights by the quality of the pairs, improve a two-view method.",
        data="fashion-mnist?n=2000",
        arms=(
            Arm("genview", "genview"),
            Arm("base method", "genview", {"generator": "none", "gamma": 0.0}),
            Arm("variants without weights", "genview", {"gamma": 0.0}),
        ),
        common=SMALL | {"epochs": 8, "batch_size": 128, "autoencoder_steps": 300},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30, "autoencoder_steps": 5000},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    one, two = (unit(64, 49, 16, seed=s) for s in (0, 1))
    v = unit(16, seed=2)
    q = objectives.genview_quality(one, two, v)
    w = objectives.genview_weights(q)
    turned = apart(objectives.genview_quality(one, two, -v), -q)
    moved = apart(objectives.genview_weights(q + 1.5), w)
    alike = apart(objectives.genview_weights(objectives.genview_quality(one, one, v)), torch.ones_like(w))
    total = abs(w.sum().item() - len(w))
    return Fact(
        "The weights of a batch sum to its size, pairs of equal views all weigh 1, a constant added to all qualities "
        "changes none, and with the direction of the foreground turned round every quality changes its sign.",
        {"sum - B": total, "equal views": alike, "constant added": moved, "direction turned": turned},
        max(total, moved, alike) < EXACT and turned < 1e-6 < q.abs().max().item(),
    )
