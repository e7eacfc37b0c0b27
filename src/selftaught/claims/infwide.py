"""The claim of infwide."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    Tiles of photographs are blurred by random walks and taken by the camera model, at gain 8 where the arms are judged,
    by one tile of each photograph. The classical filter learns nothing.
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
        common={"steps": 60, "batch_size": 4, "patch": 40, "kernel_size": 9, "lr": 2e-3},
        score=("restoration", "psnr"),
        also=(("restoration", "ssim"), ("restoration", "sharpness")),
        full={"steps": 4000},
    )
