"""The claim of srcnn, and of espcn beside it."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """Two small networks against the interpolation that they start from."""
    return Claim(
        method="srcnn",
        says="A small network learnt from pairs enlarges photographs better than bicubic interpolation.",
        data="photos:whole",
        arms=(
            Arm("srcnn", "srcnn"),
            Arm("espcn", "espcn"),
            Arm("bicubic", "bicubic"),
        ),
        common={"batch_size": 8, "steps": 400},
        score=("restoration", "psnr"),
        also=(("restoration", "ssim"),),
    )
