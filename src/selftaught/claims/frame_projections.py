"""The claim of frame-projections."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart, unit

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="frame-projections",
        says="A signal's Fourier and wavelet transforms are better views of it than its augmentations.",
        data="watch?step=200",
        arms=(
            Arm("frame projections", "frame-projections", {"scales": 16, "max_scale": 64.0}),
            Arm("simclr", "simclr", {"features": 384}),
        ),
        common={"epochs": 12, "batch_size": 64},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "watch", "epochs": 60},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    z = unit(32, 16)
    three, one = objectives.frame_projections(z, z, z), objectives.simclr(z, z, temperature=0.15)
    signal = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bins = torch.fft.rfft(signal, norm="ortho").abs().square()
    energy = bins[0] + 2 * bins[1:-1].sum() + bins[-1]
    parseval = apart(energy, signal.square().sum())
    return Fact(
        "The frames lose nothing of a signal (Parseval), and where the three views' embeddings agree the loss is three "
        "times SimCLR's: the frames teach by what they see differently.",
        {"deviation of the energy": parseval, "deviation from three times SimCLR": apart(three, 3 * one)},
        parseval < EXACT and apart(three, 3 * one) < EXACT,
    )
