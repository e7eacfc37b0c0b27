"""The claim of glare."""

from __future__ import annotations

from typing import Any

import torch

from selftaught import networks, objectives
from selftaught.claims._comparison import Arm, Claim, Start
from selftaught.claims._facts import EXACT, Fact, apart
from selftaught.networks.vit_adapters import Adapted

__all__ = ["claim", "fact"]

_VIEWS: dict[str, Any] = {"augment": "grey", "crop": 0.32, "batch_size": 32}


def claim() -> Claim:
    """The paper's claim in the small: a transformer that learnt on some cloths goes on learning on others."""
    return Claim(
        method="glare",
        says="Going on with adapters and three levels makes a backbone better in the new domain than leaving it "
        "frozen, than the global level alone, and than moving all of its weights.",
        data="textures",
        start=Start(
            "dino",
            "textures?world=1",
            _VIEWS
            | {"encoder": "vit-micro", "image_size": 32, "projector": "256-256-64", "prototypes": 256, "steps": 50}
            | {"workers": 0, "local_crops": 0, "head_norm": "bn", "target_decay": 0.99, "keep": "student"}
            | {"lr": 2e-3, "lr_scaling": "none"},
        ),
        arms=(
            Arm("glare", "glare"),
            Arm("frozen", "glare", {"lr": 0.0, "steps": 1}),
            Arm("global level alone", "glare", {"levels": "global"}),
            Arm("all weights", "glare", {"adapter": "full"}),
        ),
        common=_VIEWS | {"steps": 30, "head_warmup": 5, "workers": 0},
        score=("segmentation", "miou"),
        also=(("segmentation-knn", "miou"), ("diagnostics", "effective_rank")),
        full={"data": "textures?train=5000", "steps": 3000},
    )


def fact() -> Fact:
    """What holds exactly about adapters and regions, whatever the experiment shows."""
    torch.manual_seed(0)
    base = networks.encoder("vit-pico", channels=1, image_size=16)
    x = torch.randn(2, 1, 16, 16)
    before = networks.weights_hash(base)
    with torch.no_grad():
        same = apart(Adapted(base)(x), base(x))
        changed = Adapted(base, "lora", rank=2)
        for parameter in changed.parts.parameters():
            parameter.normal_(std=0.1)
        merged = apart(changed.merged()(x), changed(x))
    tokens = torch.randn(2, 9, 8, dtype=torch.float64)
    itself = apart(objectives.counterparts(tokens, tokens, temperature=1e-4)[0], tokens)
    numbers = {"at the start": same, "merged": merged, "counterpart of a token in its own view": itself}
    kept = networks.weights_hash(base) == before
    return Fact(
        "Adapters begin as the frozen network to the bit and never move its weights, low-rank changes merge into them, "
        "and at temperature 0 the counterpart of a token is the token itself.",
        numbers,
        same == 0 and merged < 1e-4 and itself < EXACT and kept,
    )
