"""The claim of perceptual-ssim."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    One network, one budget, one seed; the arms differ in the distance alone, and each has its own number in the table:
    MS-SSIM, PSNR (squared error), mean absolute error.
    """
    return Claim(
        method="perceptual-ssim",
        says="Autoencoders trained with MS-SSIM reconstruct with a higher MS-SSIM and sharper than the same networks "
        "trained with a pixel loss, which keep the lower pixel error.",
        data="photos?tile=32&test=3",
        arms=(
            Arm("msssim", "perceptual-ssim", {"loss": "msssim"}),
            Arm("l2", "perceptual-ssim", {"loss": "l2"}),
            Arm("l1", "perceptual-ssim", {"loss": "l1"}),
        ),
        common={"code": 32, "steps": 400, "batch_size": 64},
        score=("restoration", "ms_ssim"),
        also=(("restoration", "psnr"), ("restoration", "mae"), ("restoration", "sharpness")),
        full={"steps": 5000},
    )
