"""The claims of the contrastive methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selftaught.benchmark.comparison import FASHION, LONGER, SMALL, Arm, Claim


def _batches(sizes: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    return {f"batch {size}": {"batch_size": size} for size in sizes}


def _simclr() -> Claim:
    return Claim(
        method="simclr",
        says="Contrast between views of unlabelled images gives better features than an untrained encoder's.",
        data=FASHION,
        arms=(Arm("simclr", "simclr"), Arm("untrained", "simclr", {"steps": 1, "lr": 0.0}, kind="random")),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER,
    )


def _dcl() -> Claim:
    return Claim(
        method="dcl",
        says="Without the positive in the denominator, contrast keeps its accuracy at small batch sizes.",
        data=FASHION,
        arms=(Arm("dcl", "dcl"), Arm("infonce", "dcl", {"objective": "infonce"})),
        conditions=_batches((32, 64, 128, 256)),
        common=SMALL | {"epochs": 2, "temperature": 0.1},
        score=("knn", "accuracy"),
        full={"data": "fashion-mnist", "epochs": 20},
    )


def _moco_v2() -> Claim:
    return Claim(
        method="moco-v2",
        says="Keys must come from a network that moves slowly: without momentum the queue is inconsistent.",
        data=FASHION,
        arms=(Arm("moco-v2", "moco-v2"), Arm("no momentum", "moco-v2", {"target_decay": 0.0})),
        common=SMALL | {"epochs": 10, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"), ("diagnostics", "effective_rank")),
        full=LONGER,
    )


def _moco_v3() -> Claim:
    return Claim(
        method="moco-v3",
        says="A momentum copy and a predictor give better features than plain contrast within the batch.",
        data=FASHION,
        arms=(Arm("moco-v3", "moco-v3"), Arm("simclr", "simclr")),
        common=SMALL | {"epochs": 10, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full=LONGER,
    )


def _mochi() -> Claim:
    return Claim(
        method="mochi",
        says="Harder negatives, mixed from the hardest of the queue, spread the embedding and give better features.",
        data=FASHION,
        arms=(Arm("mochi", "mochi"), Arm("moco-v2", "moco-v2")),
        common=SMALL | {"epochs": 15, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"), ("diagnostics", "uniformity")),
        full=LONGER,
    )


def _nnclr() -> Claim:
    return Claim(
        method="nnclr",
        says="A nearest neighbour as the positive gives better features than another view of the same image.",
        data=FASHION,
        arms=(Arm("nnclr", "nnclr"), Arm("nnclr + dcl", "nnclr", {"objective": "dcl"}), Arm("simclr", "simclr")),
        common=SMALL | {"epochs": 8, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full=LONGER,
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


def _cacr() -> Claim:
    return Claim(
        method="cacr",
        says="On long-tailed data, weighing far positives and near negatives more beats uniform weights and SimCLR.",
        data="fashion-mnist?n=24000&imbalance=0.01",
        judged_on=FASHION,
        arms=(
            Arm("cacr", "cacr"),
            Arm("uniform weights", "cacr", {"choice": "none"}),
            Arm("simclr's loss", "cacr", {"objective": "simclr", "temperature": 0.2}),
        ),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"), ("diagnostics", "uniformity")),
        full={"data": "fashion-mnist?imbalance=0.01", "epochs": 30},
    )


def _isogclr() -> Claim:
    return Claim(
        method="isogclr",
        says="On long-tailed data, a temperature per image beats one fixed temperature (SogCLR, SimCLR).",
        data="fashion-mnist?n=24000&imbalance=0.01",
        judged_on=FASHION,
        arms=(
            Arm("isogclr", "isogclr"),
            Arm("sogclr", "isogclr", {"temperatures": "fixed"}),
            Arm("simclr", "simclr"),
        ),
        common=SMALL | {"epochs": 10, "batch_size": 128, "temperature": 0.2},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist?imbalance=0.01", "epochs": 60},
    )


def _groco() -> Claim:
    return Claim(
        method="groco",
        says="Sorting positives above the hardest negatives makes better nearest neighbours than a softmax over all.",
        data=FASHION,
        arms=(
            Arm("groco", "groco"),
            Arm("simclr", "simclr"),
            Arm("nt-xent, same network", "groco", {"objective": "nt_xent", "temperature": 0.2}),
        ),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full=LONGER,
    )


def _amcl() -> Claim:
    fixed = {"temp_net": "fixed", "temperature": 0.2, "include_positive": True}
    return Claim(
        method="amcl",
        says="Several heads and a temperature for every pair improve SimCLR, the more so under many augmentations.",
        data=FASHION,
        arms=(
            Arm("amcl", "amcl"),
            Arm("simclr", "amcl", fixed | {"heads": 1}),
            Arm("three heads, fixed temperature", "amcl", fixed),
        ),
        conditions={"crop": {"transforms": "a"}, "crop, blur, grey, colour, flip": {"transforms": "abcde"}},
        common=SMALL | {"augment": "paper", "epochs": 3, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full=LONGER,
    )


def _lvm_med() -> Claim:
    return Claim(
        method="lvm-med",
        says="Matching relations between images too (second order) gives better features than matching images alone.",
        data=FASHION,
        arms=(Arm("second order", "lvm-med"), Arm("first order", "lvm-med", {"second_order": False})),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER,
    )


CLAIMS: dict[str, Callable[[], Claim]] = {
    "simclr": _simclr,
    "dcl": _dcl,
    "cacr": _cacr,
    "isogclr": _isogclr,
    "groco": _groco,
    "amcl": _amcl,
    "lvm-med": _lvm_med,
    "scatsimclr": _scatsimclr,
    "moco-v2": _moco_v2,
    "moco-v3": _moco_v3,
    "mochi": _mochi,
    "nnclr": _nnclr,
}
