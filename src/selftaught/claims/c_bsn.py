"""The claim of c-bsn."""

from __future__ import annotations

from selftaught.claims._comparison import Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it."""
    blind = {"terms": "blind", "inference": "masked"}
    return Claim(
        method="c-bsn",
        says="On spatially correlated noise the conditional blind-spot network beats the ordinary blind-spot network.",
        data="photos?tile=24&enlarge=4&train=60&test=3",
        arms=(
            Arm("c-bsn", "c-bsn"),
            Arm("blind-spot, stride 1", "c-bsn", blind | {"stride_blind": 1}),
            Arm("ap-bsn", "c-bsn", blind | {"stride_blind": 3, "stride_test": 2}),
        ),
        common={"noise": "correlated:25:3", "steps": 500, "batch_size": 4, "width": 16, "modules": 2},
        score=("restoration", "psnr"),
        also=(("restoration", "ssim"),),
        full={"data": "photos:whole", "steps": 6000, "width": 32, "modules": 4},
    )
