"""The claim of dynamic curation."""

from __future__ import annotations

import numpy as np

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import Fact
from selftaught.data.curation.selection import SelectionOptions, choose

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, at equal numbers of steps, on an archive whose rarest class is a fiftieth of its largest."""
    return Claim(
        method="dynamic-curation",
        says="Choosing the samples again and again by the model's own features beats learning from the whole "
        "unbalanced archive, a random part of it, or a part chosen once.",
        data="fashion-mnist?n=6000&imbalance=0.02",
        judged_on="fashion-mnist?n=1000",
        arms=(
            Arm("dynamic", "dynamic-curation"),
            Arm("whole archive", "dynamic-curation", {"rho": 1.0}),
            Arm("random part", "dynamic-curation", {"selection": "random", "select_after": 0, "select_every": 0}),
            Arm("chosen once", "dynamic-curation", {"select_every": 0}),
        ),
        common={
            "augment": "grey", "encoder": "cnn-small", "image_size": 16, "steps": 120, "batch_size": 64, "rho": 0.3,
            "select_after": 4, "select_every": 4, "local_crops": 0, "workers": 0,
        },
        score=("knn", "accuracy"),
        also=(("diagnostics", "effective_rank"),),
        full={"data": "fashion-mnist?imbalance=0.02", "steps": 6000},
    )  # fmt: skip


def fact() -> Fact:
    """What holds about the choice, whatever the experiment shows: balance on the blobs of the sheet."""
    sizes = (2000, 1000, 600, 400, 250, 150, 100, 60, 40, 20)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    x = 3 * rng.normal(size=(len(sizes), 16))[labels] + 0.5 * rng.normal(size=(len(labels), 16))

    def bits(rule: str) -> float:
        options = SelectionOptions(selection=rule, levels="40-10", cluster_share=1.0)  # type: ignore[arg-type]
        share = np.bincount(labels[choose(x, 462, options).indices], minlength=len(sizes)) / 462
        return float(-(share[share > 0] * np.log2(share[share > 0])).sum())

    balanced, random = bits("balanced"), bits("random")
    return Fact(
        "Of ten groups whose sizes differ a hundredfold, a tenth is kept: balanced over clusters of clusters it holds "
        "all groups almost alike, drawn at random it does not.",
        {"bits, balanced": balanced, "random": random, "at most": float(np.log2(10))},
        balanced > 3.1 > 2.6 > random,
    )
