"""The claim of collossl."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, on the sheet's made-up motion with a tenth of the labels, and where it is harder: every user
    wears the devices another way round.
    """
    return Claim(
        method="collossl",
        says="Devices worn together teach an encoder that needs few labels, on users that it has not seen.",
        data="worn?turned=0",
        arms=(
            Arm("collossl", "collossl"),
            Arm("untrained", "collossl", {"steps": 1}, "random"),
            Arm("En-Co-Training", "collossl", {"steps": 1}, "raw"),
            Arm("simclr on one device", "collossl", {"mode": "simclr"}),
            Arm("the released code's sign", "collossl", {"similarity": "keras_negative"}),
        ),
        conditions={"worn alike": {}, "worn anew": {"data": "worn"}},
        common={"preset": "laptop", "epochs": 15},
        score=("device-finetune", "f1_last"),  # five windows that validate can't choose an epoch
        judging={"fraction": 0.1},
        full={"data": "worn?turned=0&users=12&windows=200&held_out=4", "epochs": 60},
    )


def _after(similarity: str) -> tuple[float, float]:
    """How much a gradient step on free embeddings moves the positives' cosine, and the negatives'."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((16, 8), (1, 16, 8), (3, 16, 8))
    z: list[Tensor] = [torch.randn(*s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    before = objectives.collossl_terms(*z, temperature=0.5, similarity=similarity)
    slopes = torch.autograd.grad(before["loss"], z)
    moved = [part.detach() - 0.5 * slope for part, slope in zip(z, slopes, strict=True)]
    after = objectives.collossl_terms(*moved, temperature=0.5, similarity=similarity)
    return tuple(float(after[k] - before[k]) for k in ("positive", "negative"))  # type: ignore[return-value]


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    (near, away), (off, on) = _after("cosine"), _after("keras_negative")
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    same = abs(float(objectives.collossl(z, z[None], z[None])) - math.log(2))
    return Fact(
        "A step on the paper's loss draws the positives nearer and sends the negatives away; with the sign of the "
        "released code it does the opposite. Negatives of the positive's own instants teach nothing: log 2.",
        {
            "positives": near,
            "negatives": away,
            "released: positives": off,
            "released: negatives": on,
            "off log 2": same,
        },
        near > 0 > away and off < 0 < on and same < EXACT,
    )
