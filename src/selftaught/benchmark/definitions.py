"""The claims: for each method what its paper says, and the smallest fair comparison that could show it.

Every arm of a claim has the same data, budget, seeds and optimiser; only what the claim is about differs. Learning
rates were not tuned for either arm: both take the method's laptop preset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selftaught.benchmark.comparison import SMALL as _SMALL
from selftaught.benchmark.comparison import Arm, Claim
from selftaught.benchmark.definitions_adapt import core_tuning


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
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full={"data": "fashion-mnist", "epochs": 30},
    )


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


def _mixed_barlow() -> Claim:
    return Claim(
        method="mixed-barlow-twins",
        says="With few data, long training and a wide embedding, mixed samples keep Barlow Twins from overfitting.",
        data="fashion-mnist?n=2000",
        arms=(Arm("mixed", "mixed-barlow-twins"), Arm("plain", "mixed-barlow-twins", {"lambda_reg": 0.0})),
        common=_SMALL | {"epochs": 50, "batch_size": 128, "projector": "512-1024"},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"), ("diagnostics", "effective_rank")),
        full={"epochs": 400},
    )


def _vicreg() -> Claim:
    return Claim(
        method="vicreg",
        says="The variance term is what prevents collapse.",
        data="fashion-mnist?n=6000",
        arms=(Arm("vicreg", "vicreg"), Arm("no variance term", "vicreg", {"variance": 0.0})),
        common=_SMALL | {"epochs": 6, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _byol() -> Claim:
    return Claim(
        method="byol",
        says="Without the predictor, predicting the momentum copy collapses.",
        data="fashion-mnist?n=6000",
        arms=(Arm("byol", "byol"), Arm("no predictor", "byol", {"predictor": "none"})),
        common=_SMALL | {"epochs": 6, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _simsiam() -> Claim:
    return Claim(
        method="simsiam",
        says="The stop-gradient is what prevents collapse.",
        data="fashion-mnist?n=6000",
        arms=(Arm("simsiam", "simsiam"), Arm("no stop-gradient", "simsiam", {"stop_gradient": False})),
        common=_SMALL | {"epochs": 6, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _moco_v2() -> Claim:
    return Claim(
        method="moco-v2",
        says="Keys must come from a network that moves slowly: without momentum the queue is inconsistent.",
        data="fashion-mnist?n=6000",
        arms=(Arm("moco-v2", "moco-v2"), Arm("no momentum", "moco-v2", {"target_decay": 0.0})),
        common=_SMALL | {"epochs": 10, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"), ("diagnostics", "effective_rank")),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _moco_v3() -> Claim:
    return Claim(
        method="moco-v3",
        says="A momentum copy and a predictor give better features than plain contrast within the batch.",
        data="fashion-mnist?n=6000",
        arms=(Arm("moco-v3", "moco-v3"), Arm("simclr", "simclr")),
        common=_SMALL | {"epochs": 10, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _mochi() -> Claim:
    return Claim(
        method="mochi",
        says="Harder negatives, mixed from the hardest of the queue, spread the embedding and give better features.",
        data="fashion-mnist?n=6000",
        arms=(Arm("mochi", "mochi"), Arm("moco-v2", "moco-v2")),
        common=_SMALL | {"epochs": 15, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"), ("diagnostics", "uniformity")),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _nnclr() -> Claim:
    return Claim(
        method="nnclr",
        says="A nearest neighbour as the positive gives better features than another view of the same image.",
        data="fashion-mnist?n=6000",
        arms=(Arm("nnclr", "nnclr"), Arm("nnclr + dcl", "nnclr", {"objective": "dcl"}), Arm("simclr", "simclr")),
        common=_SMALL | {"epochs": 12, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _supcon() -> Claim:
    return Claim(
        method="supcon",
        says="With the same labels, contrast learns better features than cross-entropy.",
        data="fashion-mnist?n=6000",
        arms=(Arm("supcon", "supcon"), Arm("cross-entropy", "supervised")),
        common=_SMALL | {"epochs": 10, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _supervised() -> Claim:
    return Claim(
        method="supervised",
        says="Labels give better features than an untrained encoder's: the yardstick measures something.",
        data="fashion-mnist?n=6000",
        arms=(Arm("supervised", "supervised"), Arm("untrained", "supervised", {"steps": 1, "lr": 0.0}, kind="random")),
        common=_SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _scatsimclr() -> Claim:
    fixed = {"pretext": "none"}
    learnt = {"encoder": "resnet10-narrow", "stem": "standard", "pretext": "none"}
    return Claim(
        method="scatsimclr",
        says="With few images and steps, a fixed scattering transform under a small adapter beats a learnt network.",
        data="fashion-mnist?n=1000",
        arms=(
            Arm("scattering", "scatsimclr", fixed),
            Arm("scattering + rotation", "scatsimclr", {"pretext": "rotation"}),
            Arm("resnet (simclr)", "scatsimclr", learnt),
        ),
        common={"augment": "grey", "image_size": 32, "epochs": 12, "batch_size": 100},
        score=("fewlabel", "accuracy@10"),
        also=(("linear", "accuracy"), ("knn", "accuracy")),
        full={"data": "fashion-mnist?n=6000", "epochs": 60},
    )


def _projection_head() -> Claim:
    return Claim(
        method="projection-head",
        says="Trained on coarse labels, the features before the head keep the fine classes that those after it lose.",
        data="fashion-mnist?n=6000",
        arms=(
            Arm("before the head", "projection-head"),
            Arm("after the head", "projection-head", {"layer": "post"}),
            Arm("no head", "projection-head", {"head": "none"}),
        ),
        common=_SMALL
        | {"objective": "supcon", "temperature": 0.1, "coarse": "0-0-0-0-0-1-1-1-1-1", "epochs": 10, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _sla() -> Claim:
    return Claim(
        method="sla",
        says="Joint labels of class and rotation beat rotation as augmentation or as a second task (same labels).",
        data="fashion-mnist?n=6000",
        arms=(
            Arm("sla+ag", "sla", {"mode": "sla"}),
            Arm("sla+sd", "sla", {"mode": "sla+sd"}),
            Arm("data augmentation", "sla", {"mode": "da"}),
            Arm("multi-task", "sla", {"mode": "mt"}),
            Arm("baseline", "sla", {"mode": "baseline"}),
        ),
        common=_SMALL | {"epochs": 6, "batch_size": 64},
        score=("classify", "accuracy"),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _lvm_med() -> Claim:
    return Claim(
        method="lvm-med",
        says="Matching relations between images too (second order) gives better features than matching images alone.",
        data="fashion-mnist?n=6000",
        arms=(Arm("second order", "lvm-med"), Arm("first order", "lvm-med", {"second_order": False})),
        common=_SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _cacr() -> Claim:
    return Claim(
        method="cacr",
        says="On long-tailed data, weighing far positives and near negatives more beats uniform weights and SimCLR.",
        data="fashion-mnist?n=24000&imbalance=0.01",
        judged_on="fashion-mnist?n=6000",
        arms=(
            Arm("cacr", "cacr"),
            Arm("uniform weights", "cacr", {"choice": "none"}),
            Arm("simclr's loss", "cacr", {"objective": "simclr", "temperature": 0.2}),
        ),
        common=_SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"), ("diagnostics", "uniformity")),
        full={"data": "fashion-mnist?imbalance=0.01", "epochs": 30},
    )


def _isogclr() -> Claim:
    return Claim(
        method="isogclr",
        says="On long-tailed data, a temperature per image beats one fixed temperature (SogCLR, SimCLR).",
        data="fashion-mnist?n=24000&imbalance=0.01",
        judged_on="fashion-mnist?n=6000",
        arms=(
            Arm("isogclr", "isogclr"),
            Arm("sogclr", "isogclr", {"temperatures": "fixed"}),
            Arm("simclr", "simclr"),
        ),
        common=_SMALL | {"epochs": 10, "batch_size": 128, "temperature": 0.2},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist?imbalance=0.01", "epochs": 60},
    )


def _groco() -> Claim:
    return Claim(
        method="groco",
        says="Sorting positives above the hardest negatives makes better nearest neighbours than a softmax over all.",
        data="fashion-mnist?n=6000",
        arms=(
            Arm("groco", "groco"),
            Arm("simclr", "simclr"),
            Arm("nt-xent, same network", "groco", {"objective": "nt_xent", "temperature": 0.2}),
        ),
        common=_SMALL | {"epochs": 6, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _amcl() -> Claim:
    fixed = {"temp_net": "fixed", "temperature": 0.2, "include_positive": True}
    return Claim(
        method="amcl",
        says="Several heads and a temperature for every pair improve SimCLR, the more so under many augmentations.",
        data="fashion-mnist?n=6000",
        arms=(
            Arm("amcl", "amcl"),
            Arm("simclr", "amcl", fixed | {"heads": 1}),
            Arm("three heads, fixed temperature", "amcl", fixed),
            Arm("one head, adaptive temperature", "amcl", {"heads": 1}),
        ),
        conditions={"crop": {"transforms": "a"}, "crop, blur, grey, colour, flip": {"transforms": "abcde"}},
        common=_SMALL | {"augment": "paper", "epochs": 4, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _swav() -> Claim:
    return Claim(
        method="swav",
        says="The equal partition of the samples is what prevents collapse.",
        data="fashion-mnist?n=6000",
        arms=(Arm("swav", "swav"), Arm("no equal partition", "swav", {"iters": 0})),
        common=_SMALL | {"epochs": 8, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _seer() -> Claim:
    return Claim(
        method="seer",
        says="On an unbalanced stream, clusters sized by a power law beat clusters of equal size.",
        data="fashion-mnist?n=24000&imbalance=0.01",
        judged_on="fashion-mnist?n=6000",
        arms=(
            Arm("power law", "seer", {"power_law": 0.5}),
            Arm("equal partition", "seer"),
            Arm("swav", "swav"),
        ),
        common=_SMALL | {"epochs": 8, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist?imbalance=0.01", "epochs": 30},
    )


def _dino() -> Claim:
    return Claim(
        method="dino",
        says="Without centring the teacher's output collapses.",
        data="fashion-mnist?n=6000",
        arms=(Arm("dino", "dino"), Arm("no centring", "dino", {"centering": False})),
        common=_SMALL | {"epochs": 8, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full={"data": "fashion-mnist", "epochs": 30},
    )


def _ressl() -> Claim:
    return Claim(
        method="ressl",
        says="Relations to other images, as a teacher sees them in weak views, teach more than telling images apart.",
        data="fashion-mnist?n=6000",
        arms=(
            Arm("ressl", "ressl"),
            Arm("moco-v2", "moco-v2"),
            Arm("strong views for the teacher", "ressl", {"teacher_view": "strong"}),
        ),
        common=_SMALL | {"epochs": 8, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full={"data": "fashion-mnist", "epochs": 30},
    )


CLAIMS: dict[str, Callable[[], Claim]] = {
    "simclr": _simclr,
    "dcl": _dcl,
    "barlow-twins": _barlow,
    "mixed-barlow-twins": _mixed_barlow,
    "vicreg": _vicreg,
    "byol": _byol,
    "simsiam": _simsiam,
    "cacr": _cacr,
    "isogclr": _isogclr,
    "groco": _groco,
    "amcl": _amcl,
    "c-bsn": _cbsn,
    "frame-projections": _frames,
    "sla": _sla,
    "core-tuning": core_tuning,
    "lvm-med": _lvm_med,
    "scatsimclr": _scatsimclr,
    "projection-head": _projection_head,
    "moco-v2": _moco_v2,
    "moco-v3": _moco_v3,
    "mochi": _mochi,
    "nnclr": _nnclr,
    "supcon": _supcon,
    "supervised": _supervised,
    "swav": _swav,
    "seer": _seer,
    "dino": _dino,
    "ressl": _ressl,
}
"""One claim per method that is built."""
