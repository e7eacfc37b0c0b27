"""The claims of the methods that learn from labels."""

from __future__ import annotations

from collections.abc import Callable

from selftaught.benchmark.comparison import FASHION, LONGER, SMALL, Arm, Claim, Start


def _supcon() -> Claim:
    return Claim(
        method="supcon",
        says="With the same labels, contrast learns better features than cross-entropy.",
        data=FASHION,
        arms=(Arm("supcon", "supcon"), Arm("cross-entropy", "supervised")),
        common=SMALL | {"epochs": 10, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER,
    )


def _supervised() -> Claim:
    return Claim(
        method="supervised",
        says="Labels give better features than an untrained encoder's: the yardstick measures something.",
        data=FASHION,
        arms=(Arm("supervised", "supervised"), Arm("untrained", "supervised", {"steps": 1, "lr": 0.0}, kind="random")),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER,
    )


def _projection_head() -> Claim:
    return Claim(
        method="projection-head",
        says="Trained on coarse labels, the features before the head keep the fine classes that those after it lose.",
        data=FASHION,
        arms=(
            Arm("before the head", "projection-head"),
            Arm("after the head", "projection-head", {"layer": "post"}),
            Arm("no head", "projection-head", {"head": "none"}),
        ),
        common=SMALL
        | {"objective": "supcon", "temperature": 0.1, "coarse": "0-0-0-0-0-1-1-1-1-1", "epochs": 10, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full=LONGER,
    )


def _sla() -> Claim:
    return Claim(
        method="sla",
        says="Joint labels of class and rotation beat rotation as augmentation or second task; aggregation adds to it.",
        data=FASHION,
        arms=(
            Arm("sla+ag", "sla", {"mode": "sla"}),
            Arm("sla, one copy (si)", "sla", {"mode": "sla", "inference": "single"}),
            Arm("sla+sd", "sla", {"mode": "sla+sd"}),
            Arm("data augmentation", "sla", {"mode": "da"}),
            Arm("multi-task", "sla", {"mode": "mt"}),
            Arm("baseline", "sla", {"mode": "baseline"}),
        ),
        common=SMALL | {"epochs": 4, "batch_size": 64},
        score=("classify", "accuracy"),
        full=LONGER,
    )


def _core_tuning() -> Claim:
    return Claim(
        method="core-tuning",
        says="With few labels, Core-tuning adapts a contrastive encoder better than cross-entropy, SupCon or Mixup.",
        data="fashion-mnist?n=300",
        judged_on=FASHION,
        start=Start("simclr", "fashion-mnist?n=12000", SMALL | {"epochs": 8, "batch_size": 128}),
        arms=(
            Arm("core-tuning", "core-tuning"),
            Arm("cross-entropy", "core-tuning", {"mode": "ce"}),
            Arm("cross-entropy + supcon", "core-tuning", {"mode": "ce+supcon"}),
            Arm("mixup", "core-tuning", {"mode": "mixup"}),
        ),
        common=SMALL | {"steps": 400, "batch_size": 64},
        score=("classify", "accuracy"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full={"data": "fashion-mnist?n=1000", "steps": 3000},
    )


CLAIMS: dict[str, Callable[[], Claim]] = {
    "sla": _sla,
    "core-tuning": _core_tuning,
    "projection-head": _projection_head,
    "supcon": _supcon,
    "supervised": _supervised,
}
