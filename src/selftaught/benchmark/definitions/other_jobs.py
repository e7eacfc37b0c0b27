"""The claims of restoration and of sensor series."""

from __future__ import annotations

from collections.abc import Callable

from selftaught.benchmark.comparison import Arm, Claim


def _cbsn() -> Claim:
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


def _frames() -> Claim:
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


CLAIMS: dict[str, Callable[[], Claim]] = {
    "c-bsn": _cbsn,
    "frame-projections": _frames,
}
