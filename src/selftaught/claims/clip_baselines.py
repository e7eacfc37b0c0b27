"""The claim of clip-baselines."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import normalize

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact

__all__ = ["claim", "fact"]

_PLAIN: dict[str, Any] = {"num_augs": 0, "separate_proj": False, "text_views": "plain"}


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="clip-baselines",
        says="With weak and strong views, two sets of projectors and smoothing CLIP is better; then an extra loss, "
        "which helps the plain recipe, gives nothing more.",
        data="emoji",
        arms=(
            Arm("improved CLIP", "clip-baselines"),
            Arm("plain CLIP", "clip-baselines", _PLAIN | {"objective": "clip"}),
            Arm("plain + BarLIP", "clip-baselines", _PLAIN | {"objective": "barlip"}),
            Arm("improved + BarLIP", "clip-baselines", {"objective": "barlip"}),
        ),
        common={"image_size": 32, "steps": 60, "batch_size": 64},
        score=("text-retrieval", "image_to_text_r10"),
        also=(
            ("text-retrieval", "image_to_text_r1"),
            ("text-retrieval", "text_to_image_r10"),
            ("text-retrieval", "image_to_text_rank"),
        ),
        full={"steps": 2000, "batch_size": 128},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    rng = torch.Generator().manual_seed(0)
    image, text = (torch.randn(16, 8, dtype=torch.float64, generator=rng) for _ in range(2))
    plain = objectives.clip(image, text, temperature=0.1)
    views = objectives.cl2l(
        image, text, [image, image], [text, text], temperature=0.1, local_temperature=None, smoothing=0.0
    )
    halves = [
        objectives.clip_sharded(image[f : f + 8], text[f : f + 8], image, text, first=f, temperature=0.1)
        for f in (0, 8)
    ]
    q, _ = torch.linalg.qr(torch.randn(16, 8, dtype=torch.float64, generator=rng))
    codes = objectives.sinkhorn(normalize(image, dim=1) @ normalize(text, dim=1).T)
    off = {
        "strong views that are the weak ones": abs(float(views - plain)),
        "two processes": abs(float(sum(halves) / 2 - plain)),
        "BarLIP at the identity": float(objectives.barlip_pair(4 * q, 4 * q)),
        "codes' sums": float((codes.sum(1) - 1).abs().max()),
    }
    return Fact(
        "Without strong views of their own the improved loss is CLIP's, two processes have the loss of one, BarLIP is "
        "0 where the modalities' correlation is the identity, and a code sums to 1.",
        off,
        max(off.values()) < EXACT,
    )
