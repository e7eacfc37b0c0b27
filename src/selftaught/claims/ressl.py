"""The claim of ressl."""

from __future__ import annotations

from torch.nn.functional import cross_entropy

from selftaught import objectives
from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart, gradient, unit

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="ressl",
        says="Relations to other images, as a teacher sees them in weak views, teach more than telling images apart.",
        data=FASHION,
        arms=(
            Arm("ressl", "ressl"),
            Arm("moco-v2", "moco-v2"),
            Arm("strong views for the teacher", "ressl", {"teacher_view": "strong"}),
        ),
        common=SMALL | {"epochs": 8, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full=LONGER,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    q, queue = unit(32, 16), unit(256, 16, seed=9)
    slope = gradient(lambda z: objectives.ressl(z, q, queue, temperature_q=0.1, temperature_k=0.1), q)
    sharp = objectives.ressl(q, q, queue, temperature_k=1e-4)
    nearest = cross_entropy(q @ queue.T / 0.1, (q @ queue.T).argmax(1))
    return Fact(
        "The gradient is gone exactly where a view has its teacher's relations; with a teacher of temperature 0 the "
        "loss is InfoNCE with the nearest entry of the queue as the positive.",
        {"largest slope at equal relations": slope.abs().max().item(), "deviation at 0": apart(sharp, nearest)},
        slope.abs().max().item() < EXACT and apart(sharp, nearest) < 1e-3,
    )
