"""The claim of mochi."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import FASHION, LONGER, SMALL, Arm, Claim
from selftaught.claims._facts import Fact, unit, views

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="mochi",
        says="Harder negatives, mixed from the hardest of the queue, spread the embedding and give better features.",
        data=FASHION,
        arms=(Arm("mochi", "mochi"), Arm("moco-v2", "moco-v2")),
        common=SMALL | {"epochs": 15, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"), ("diagnostics", "uniformity")),
        full=LONGER,
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    (q, k), queue = views(16), unit(256, 32, seed=9)
    draws = objectives.draw_mochi(torch.full((16,), 64), s=32, s_prime=32, generator=torch.Generator().manual_seed(0))
    options = {"N": 64, "s": 32, "s_prime": 32, "draws": draws}
    mixed = objectives.mochi_negatives(q, queue, **options)[1]
    parents = (q @ queue.T).topk(64).values.gather(1, draws.partner)
    gain = torch.einsum("bd,bsd->bs", q, mixed) - parents
    harder = objectives.mochi(q, k, queue, **options) - objectives.moco_v2(q, k, queue)
    return Fact(
        "A negative mixed with the query is nearer to it than the one it was made from, always; and the loss is above "
        "MoCo v2's on the same queue.",
        {"least gain in similarity": gain.min().item(), "mean gain": gain.mean().item(), "loss above": harder.item()},
        gain.min().item() > 0 and harder.item() > 0,
    )
