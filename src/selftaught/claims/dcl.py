"""The claim of dcl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from selftaught import objectives
from selftaught.claims._comparison import FASHION, SMALL, Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart, gradient, views

__all__ = ["claim", "fact"]


def _batches(sizes: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    return {f"batch {size}": {"batch_size": size} for size in sizes}


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="dcl",
        says="Without the positive in the denominator, contrast keeps its accuracy at small batch sizes.",
        data=FASHION,
        arms=(Arm("dcl", "dcl"), Arm("infonce", "dcl", {"objective": "infonce"})),
        conditions=_batches((32, 64, 128, 256)),
        common=SMALL | {"epochs": 2, "temperature": 0.1},
        score=("knn", "accuracy"),
        full={"data": "fashion-mnist", "epochs": 20},
    )


def _first_anchor(other: Tensor, include: bool) -> Callable[[Tensor], Tensor]:
    return lambda z: objectives.dcl_per_anchor(z, other, symmetric=False, include_positive=include)[0, 0]


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    coupling, worst = [], 0.0
    for count in (32, 64, 128, 256):
        z1, z2 = views(count)
        q = objectives.dcl_coupling(z1, z2)
        infonce, dcl = (gradient(_first_anchor(z2, include), z1) for include in (True, False))
        worst = max(worst, apart(infonce, q[0] * dcl))
        coupling.append(q.mean().item())
    return Fact(
        "InfoNCE's gradient is DCL's times a coupling q below 1, and the smaller the batch, the smaller is q.",
        {"q, batch 32": coupling[0], "q, batch 256": coupling[-1], "InfoNCE's gradient minus q times DCL's": worst},
        worst < EXACT and coupling == sorted(coupling) and coupling[-1] < 1,
    )
