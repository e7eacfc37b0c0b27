"""The claim of dadeblur."""

from __future__ import annotations

import math

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim, Start
from selftaught.claims._facts import EXACT, Fact, apart
from selftaught.networks.reblurring import BlurDiffusion, ddim_times

__all__ = ["claim", "fact"]

_SMALL = {
    "network": "frame-stack", "width": 24, "blocks": 4, "exposure": 7, "patch": 40, "turn": False, "longest": 10.0,
    "magnitude_encoder": "small", "magnitude_widths": "8-16-16-16-16", "magnitude_fusion": 16, "magnitude_blocks": 1,
    "magnitude_lr": 5e-3, "blur_model": "linear", "magnitude_offset": 1.0, "adapt_epochs": 100, "adapt_lr": 5e-4,
    "adapt_patch": 40, "batch_size": 8, "precision": "32", "workers": 0,
}  # fmt: skip


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    A window moves over photographs, 7 frames make an exposure: from left to right where the deblurrer learns, up and
    down over other photographs where it is judged. There one exposure in seven is sharp, as with a short shutter, and
    its neighbours are blurred and as far away as everywhere, as in the sheet's toy. Adaptation takes some 200 steps,
    as there. All arms begin with the same trained networks and learn no more of the first; what differs is the
    adaptation to the clips that are judged, whose sharp frames it doesn't see.

    A window that rests (rest=14) is no such toy: the neighbours of its sharp exposures are sharp and in place, too, and
    adapting teaches to copy them. With the true blur of 6 pixels on the places picked there, the PSNR of exposures in
    motion falls (24.6 to 24.1 dB, two seeds); with neighbours in motion around the same places it rises to 26.0.

    How to read the score: PSNR is the mean over all exposures, the sharp ones included, and of these comes about half
    of the gain. In motion: blurred 24.7 dB, not adapted 24.1, wrong direction 24.7, adapted 25.0, and 25.7 with as many
    true pairs (two seeds). What is missing there is length: the product of magnitudes and the offset make blurs of 3
    to 4 pixels; with 6 on the same places it is 25.6, but sharp exposures lose 8 dB. How much the direction matters
    hangs on that length, hence the spread over seeds: where the estimator says some 6 pixels of sharp exposures, too
    (seed 3), the blur has 6.6, and in motion the right direction gives 25.5 dB, the wrong one 22.2.
    """
    return Claim(
        method="dadeblur",
        says="A deblurrer that adapts to another camera's videos, by blurring their sharp places as they are blurred, "
        "is better there than with blur in the wrong direction, and than without adaptation.",
        data="pans?train=40&test=2&frames=126&side=48&direction=horizontal",
        judged_on="pans?train=1&test=6&frames=147&side=48&rest=0&hold=7&direction=vertical&draw=1",
        arms=(
            Arm("adapted", "dadeblur", {}),
            Arm("wrong direction", "dadeblur", {"orientation": "across"}),
            Arm("not adapted", "dadeblur", {"adaptation": "none"}),
        ),
        common=_SMALL | {"steps": 1, "magnitude_steps": 1, "lr": 0.0, "magnitude_lr": 1e-12},
        start=Start(
            "dadeblur",
            "pans?train=40&test=2&frames=126&side=48&direction=horizontal",
            _SMALL | {"steps": 500, "magnitude_steps": 250, "lr": 1e-3, "magnitude_lr": 3e-3},
        ),
        score=("restoration", "psnr"),
        also=(("restoration", "ssim"),),
        judging={"adapt": True, "limit": 96},
        full={"adapt_epochs": 200},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    rng = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(1, 3, 4, 4, dtype=torch.float64, generator=rng) for _ in range(2))
    model = BlurDiffusion(lambda x, t: noise)
    start = model.noised(x0, torch.full((1,), ddim_times()[0][0]), noise)
    found = model.ddim(x0, torch.zeros_like(x0), noise=start, bound=None)
    first = float(model.abar[0])
    sampler = apart(found, math.sqrt(first) * x0 + math.sqrt(1 - first) * noise)
    even = torch.full((6, 3, 3), 4.0, dtype=torch.float64)
    strength = apart(objectives.domain_magnitude(even), even + 10)
    return Fact(
        "With the true noise the sampler lands on the first step's mixture whatever its steps; a video that is blurred "
        "evenly is to be blurred by as much, and the offset.",
        {"deviation of the sampler": sampler, "of the strength": strength},
        max(sampler, strength) < EXACT,
    )
