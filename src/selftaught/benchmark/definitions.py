"""The claims: for each method what its paper says, and the smallest fair comparison that could show it.

Every arm of a claim has the same data, budget, seeds and optimiser; only what the claim is about differs. Learning
rates were not tuned for either arm: both take the method's laptop preset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a method and its options; ``kind`` says whether its trained encoder is judged."""

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    kind: Literal["this", "random"] = "this"


@dataclass(frozen=True)
class Claim:
    """A comparison of ``arms[0]`` (proposed) with the others (baselines).

    Attributes:
        method: slug the claim belongs to.
        says: the paper's claim in one sentence.
        data: source of all arms.
        common: options of all arms.
        conditions: name -> options that vary over the comparison (batch sizes, ...).
        score: names of a protocol and of its number that decide, the larger the better.
        also: further numbers to store.
        seeds: repetitions; each arm of a pair has the same seed.
        full: options that the longer form changes.
    """

    method: str
    says: str
    data: str
    arms: tuple[Arm, ...]
    common: dict[str, Any]
    score: tuple[str, str]
    conditions: dict[str, dict[str, Any]] = field(default_factory=lambda: {"": {}})
    also: tuple[tuple[str, str], ...] = ()
    seeds: int = 3
    full: dict[str, Any] = field(default_factory=dict)
    full_seeds: int = 5


_SMALL: dict[str, Any] = {"augment": "grey", "image_size": 32, "stem": "standard"}
"""Fashion-MNIST on two cores: a strided stem, views without colour."""


def _batches(sizes: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    return {f"batch {size}": {"batch_size": size} for size in sizes}


def _simclr() -> Claim:
    return Claim(
        method="simclr",
        says="Contrast between views of unlabelled images gives better features than an untrained encoder's.",
        data="fashion-mnist?n=6000",
        arms=(Arm("simclr", "simclr"), Arm("untrained", "simclr", {"steps": 1, "lr": 0.0}, kind="random")),
        common=_SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _dcl() -> Claim:
    return Claim(
        method="dcl",
        says="Without the positive in the denominator, contrast keeps its accuracy at small batch sizes.",
        data="fashion-mnist?n=6000",
        arms=(Arm("dcl", "dcl"), Arm("infonce", "dcl", {"objective": "infonce"})),
        conditions=_batches((32, 64, 128, 256)),
        common=_SMALL | {"epochs": 2, "temperature": 0.1},
        score=("knn", "accuracy"),
        full={"data": "fashion-mnist", "epochs": 20},
    )


def _barlow() -> Claim:
    return Claim(
        method="barlow-twins",
        says="Both terms are needed: with the invariance term alone the embedding collapses.",
        data="fashion-mnist?n=6000",
        arms=(
            Arm("both terms", "barlow-twins"),
            Arm("invariance only", "barlow-twins", {"terms": "invariance"}),
            Arm("redundancy only", "barlow-twins", {"terms": "redundancy"}),
        ),
        common=_SMALL | {"epochs": 5, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("diagnostics", "effective_rank"), ("linear", "accuracy")),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _cbsn() -> Claim:
    blind = {"terms": "blind", "inference": "masked"}
    return Claim(
        method="c-bsn",
        says="On spatially correlated noise the conditional blind-spot network beats the ordinary blind-spot network.",
        data="photos:whole",
        arms=(
            Arm("c-bsn", "c-bsn"),
            Arm("blind-spot, stride 1", "c-bsn", blind | {"stride_blind": 1}),
            Arm("ap-bsn", "c-bsn", blind | {"stride_blind": 3, "stride_test": 2}),
        ),
        common={"noise": "correlated:25:3", "steps": 400, "batch_size": 4, "width": 16, "modules": 2},
        score=("restoration", "psnr"),
        also=(("restoration", "ssim"),),
        full={"steps": 6000, "width": 32, "modules": 4},
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
    "simclr": _simclr,
    "dcl": _dcl,
    "barlow-twins": _barlow,
    "c-bsn": _cbsn,
    "frame-projections": _frames,
}
"""One claim per method that is built."""
