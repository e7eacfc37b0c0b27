"""The claim of clip."""

from __future__ import annotations

import math

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact
from selftaught.networks.caching import cached_forward

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="clip",
        says="Captions teach an encoder what pictures show: better features than from pictures alone.",
        data="stamps",
        arms=(
            Arm("clip", "clip"),
            Arm("simclr (pictures alone)", "simclr", {"encoder": "cnn-small", "augment": "small"}),
            Arm("untrained", "clip", {"steps": 1}, kind="random"),
        ),
        common={"image_size": 32, "steps": 120, "batch_size": 64},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"steps": 3000, "batch_size": 128, "image_size": 64},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    torch.manual_seed(0)
    row = torch.randn(1, 8, dtype=torch.float64).expand(32, 8)
    same = abs(float(objectives.clip(row, row, temperature=0.1)) - math.log(32))
    eye, s = torch.eye(32, dtype=torch.float64), 7.0
    apart = abs(float(objectives.clip(eye, eye, temperature=1 / s)) - math.log1p(31 * math.exp(-s)))
    net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 8)).double()
    x, y = torch.randn(32, 6, dtype=torch.float64), torch.randn(32, 8, dtype=torch.float64)
    gradients = []
    for piece in (0, 5):
        net.zero_grad()
        objectives.clip(cached_forward(net, x, piece), y).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    cached = float((gradients[0] - gradients[1]).abs().max())
    return Fact(
        "Pairs that all look alike cost log N, orthonormal pairs log(1 + (N - 1) e^-s), and with gradient caching a "
        "batch that goes through in pieces has the gradient of the whole.",
        {"all alike": same, "orthonormal": apart, "gradient in pieces": cached},
        max(same, apart, cached) < EXACT,
    )
