"""The claim of srresnet."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    return Claim(
        method="srresnet",
        says="SRResNet enlarges with a higher PSNR than bicubic interpolation and the smaller networks before it.",
        data="photos:whole",
        arms=(
            Arm("srresnet", "srresnet", {"steps": 400}),
            Arm("bicubic", "bicubic", {"steps": 1}),
            Arm("espcn", "espcn", {"steps": 400}),
            Arm("srcnn", "srcnn", {"steps": 400}),
        ),
        common={"batch_size": 8},
        score=("restoration", "psnr"),
        also=(("restoration", "ssim"), ("restoration", "sharpness")),
    )
