"""The claim of meta-loss-rescaling."""

from __future__ import annotations

import torch

from selftaught import networks, objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="meta-loss-rescaling",
        says="Weights learnt on the fly from noisy labels alone find the wrong ones, without any clean label.",
        data="sentiment?n=1000&wrong_labels=0.2",
        arms=(
            Arm("storm", "meta-loss-rescaling"),
            Arm("cleanlab's ranking", "meta-loss-rescaling", {"mode": "plain"}, "raw"),
            Arm("learnt, not used", "meta-loss-rescaling", {"mode": "simulate"}),
            Arm("rescalers untrained", "meta-loss-rescaling", {"mode": "agra"}),
        ),
        common={"preset": "laptop-text", "epochs": 6, "vocabulary": 2000},
        score=("label-noise", "auc"),
        also=(("label-noise", "found_in_first"),),
        full={"data": "sentiment?wrong_labels=0.2", "epochs": 10},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rescaler = networks.Rescaler().double()
    logits = rescaler.logits(torch.rand(64, 19, generator=generator, dtype=torch.float64)).mean(0).abs().max().item()
    losses = torch.rand(64, generator=generator)
    plain = (objectives.meta_loss_rescaling(losses, torch.ones(64)) - losses.mean()).abs().item()
    return Fact(
        "Weights can't all go to 0: the mean logit of a batch is 0 whatever the rescaler has learnt. Weights of 1 "
        "leave the loss as it is.",
        {"mean logit": logits, "deviation of unit weights": plain},
        logits < EXACT and plain < EXACT,
    )
