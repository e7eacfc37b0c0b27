"""The claim of cacr."""

from __future__ import annotations

from selftaught import objectives
from selftaught.claims._comparison import FASHION, SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart, views

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="cacr",
        says="On long-tailed data, weighing far positives and near negatives more beats uniform weights and SimCLR.",
        data="fashion-mnist?n=24000&imbalance=0.01",
        judged_on=FASHION,
        arms=(
            Arm("cacr", "cacr"),
            Arm("uniform weights", "cacr", {"choice": "none"}),
            Arm("simclr's loss", "cacr", {"objective": "simclr", "temperature": 0.2}),
        ),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"), ("diagnostics", "uniformity")),
        full={"data": "fashion-mnist?imbalance=0.01", "epochs": 30},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    several = views(64, 16, number=5, noise=1.0)
    full, none = (objectives.cacr_terms(*several, choice=choice) for choice in ("full", "none"))
    limit = objectives.cacr_terms(*several, tau_pos=0.0, tau_neg=0.0)
    terms = ("attraction", "repulsion")
    pulled, pushed = ((full[name] - none[name]).item() for name in terms)
    off = max(apart(limit[name], none[name]) for name in terms)
    return Fact(
        "Weighing by distance costs far positives and near negatives more than uniform weights do, on any embedding; "
        "at both temperatures 0 the weights are the uniform ones.",
        {"attraction above uniform": pulled, "repulsion above uniform": pushed, "deviation at temperatures 0": off},
        pulled > 0 and pushed > 0 and off < EXACT,
    )
