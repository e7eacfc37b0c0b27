"""The claims of the methods that adapt a trained encoder: all arms begin with the same one."""

from __future__ import annotations

from selftaught.benchmark.comparison import SMALL, Arm, Claim, Start


def core_tuning() -> Claim:
    """Fine-tuning a contrastive encoder on 30 labels per class."""
    return Claim(
        method="core-tuning",
        says="With few labels, Core-tuning adapts a contrastive encoder better than cross-entropy, SupCon or Mixup.",
        data="fashion-mnist?n=300",
        judged_on="fashion-mnist?n=6000",
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
