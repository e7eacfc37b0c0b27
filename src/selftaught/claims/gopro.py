"""The claim of gopro."""

from __future__ import annotations

import math

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim, Start
from selftaught.claims._facts import EXACT, Fact
from selftaught.networks.prompts import token_statistics

__all__ = ["claim", "fact"]

_SCENES = "scenes?train=1200&test=400&colours=6&shapes=4"


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it, on generated scenes."""
    return Claim(
        method="gopro",
        says="Prompts made of each image's style and content keep the accuracy on classes that they weren't learnt on, "
        "which CoOp's lose.",
        data=f"{_SCENES}&classes=base&n=192",
        start=Start("clip", _SCENES, {"steps": 250, "batch_size": 64, "image_size": 32}),
        arms=(
            Arm("gopro", "gopro"),
            Arm("coop", "gopro", {"mode": "coop"}),
            Arm("cocoop", "gopro", {"mode": "cocoop"}),
            Arm("zero-shot CLIP", "gopro", {"mode": "zero-shot", "steps": 1}),
        ),
        common={"steps": 60, "batch_size": 16},
        score=("base-to-new", "harmonic"),
        also=(("base-to-new", "base"), ("base-to-new", "new")),
        judged_on=_SCENES,
        full={"steps": 600},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 10, 4, dtype=torch.float64, generator=rng)
    (mean, spread), (same, as_much) = token_statistics(tokens), token_statistics(tokens.flip(1))
    order = float(torch.maximum((mean - same).abs().max(), (spread - as_much).abs().max()))
    eye = torch.eye(8, dtype=torch.float64)[:4]
    logits, labels = torch.zeros(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    text = torch.randn(4, 3, 5, dtype=torch.float64, generator=rng)
    terms = objectives.gopro_terms(logits, labels, text, text, text, eye, eye)
    off = {
        "order of tokens": order,
        "contrast of orthonormal rows": abs(float(terms["con"]) - math.log1p(6 * math.exp(-10))),
        "prompts of equal views": float(terms["sem"]),
        "no knowledge": abs(float(terms["ce"]) - math.log(3)),
    }
    return Fact(
        "Style and content don't depend on the order of an image's tokens, equal views have equal prompts at no cost, "
        "and the contrast of orthonormal rows is log(1 + (2B - 2) e^-10).",
        off,
        max(off.values()) < EXACT,
    )
