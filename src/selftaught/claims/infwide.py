"""The claim of infwide."""

from __future__ import annotations

import torch

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart
from selftaught.networks.wiener import circular_blur, wiener

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    Tiles of photographs are blurred by random walks and taken by the camera model, at gain 8 where the arms are judged,
    by one tile of each photograph; at the paper's other gains, 4 and 16, PSNR is stored. The classical filter learns
    nothing.
    """
    return Claim(
        method="infwide",
        says="Both branches deblur night pictures better than the image branch or the feature branch (DWDN) alone, and "
        "than the classical Wiener filter.",
        data="photos?test=1",
        arms=(
            Arm("both", "infwide", {}),
            Arm("image branch", "infwide", {"branches": "image"}),
            Arm("feature branch", "infwide", {"network": "dwdn"}),
            Arm("wiener", "infwide", {"network": "wiener", "steps": 1}),
        ),
        common={"steps": 120, "start": "wiener", "batch_size": 4, "patch": 40, "kernel_size": 9, "lr": 2e-3},
        score=("restoration", "psnr"),
        also=tuple(("restoration", number) for number in ("ssim", "sharpness", "psnr_gain_4", "psnr_gain_16")),
        full={"steps": 4000},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    rng = torch.Generator().manual_seed(0)
    sharp = torch.rand(1, 3, 24, 20, dtype=torch.float64, generator=rng)
    kernel = torch.rand(1, 1, 3, 3, dtype=torch.float64, generator=rng)
    kernel[0, 0, 1, 1] += 9  # its transform has no zero
    kernel = kernel / kernel.sum()
    blurred = circular_blur(sharp, kernel)
    undone = apart(wiener(blurred, kernel, nsr=0.0, pad="circular"), sharp)
    light = torch.tensor([0.5, 2.0, 0.1], dtype=torch.float64).view(1, 3, 1, 1)
    scaled = apart(wiener(light * blurred, kernel, nsr=0.01), light * wiener(blurred, kernel, nsr=0.01))
    return Fact(
        "Without noise the Wiener layer undoes a blur that wraps around, and light passes through it as a factor.",
        {"deviation of the undone blur": undone, "of the scaled image": scaled},
        max(undone, scaled) < EXACT,
    )
