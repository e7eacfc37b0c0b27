"""The claim of srgan."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    Both networks take as many steps: SRGAN's are parted between its stages. VGG's weights are named, so that the
    comparison is the same with and without a network.
    """
    return Claim(
        method="srgan",
        says="SRGAN's images are sharper than SRResNet's, nearer to photographs in fine detail, at a lower PSNR.",
        data="photos:whole",
        arms=(
            Arm("srgan", "srgan", {"pretrain_steps": 400, "steps": 120, "vgg_weights": "hed"}),
            Arm("srresnet", "srresnet", {"steps": 520}),
            Arm("bicubic", "bicubic", {"steps": 1}),
        ),
        common={"batch_size": 8},
        score=("restoration", "sharpness"),
        also=(("restoration", "psnr"), ("restoration", "ssim")),
    )
