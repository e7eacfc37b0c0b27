"""The claims of the methods without negatives: redundancy reduction, self-distillation, clustering."""

from __future__ import annotations

from collections.abc import Callable

from selftaught.benchmark.comparison import FASHION, LONGER, SMALL, Arm, Claim


def _barlow() -> Claim:
    return Claim(
        method="barlow-twins",
        says="Both terms are needed: with the invariance term alone the embedding collapses.",
        data=FASHION,
        arms=(
            Arm("both terms", "barlow-twins"),
            Arm("invariance only", "barlow-twins", {"terms": "invariance"}),
            Arm("redundancy only", "barlow-twins", {"terms": "redundancy"}),
        ),
        common=SMALL | {"epochs": 5, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )


def _mixed_barlow() -> Claim:
    return Claim(
        method="mixed-barlow-twins",
        says="With few data, long training and a wide embedding, mixed samples keep Barlow Twins from overfitting.",
        data="fashion-mnist?n=2000",
        arms=(Arm("mixed", "mixed-barlow-twins"), Arm("plain", "mixed-barlow-twins", {"lambda_reg": 0.0})),
        common=SMALL | {"epochs": 40, "batch_size": 128, "projector": "512-1024"},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"), ("diagnostics", "effective_rank")),
        full={"epochs": 400},
    )


def _vicreg() -> Claim:
    return Claim(
        method="vicreg",
        says="The variance term is what prevents collapse.",
        data=FASHION,
        arms=(Arm("vicreg", "vicreg"), Arm("no variance term", "vicreg", {"variance": 0.0})),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )


def _byol() -> Claim:
    return Claim(
        method="byol",
        says="Without the predictor, predicting the momentum copy collapses.",
        data=FASHION,
        arms=(Arm("byol", "byol"), Arm("no predictor", "byol", {"predictor": "none"})),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )


def _simsiam() -> Claim:
    return Claim(
        method="simsiam",
        says="The stop-gradient is what prevents collapse.",
        data=FASHION,
        arms=(Arm("simsiam", "simsiam"), Arm("no stop-gradient", "simsiam", {"stop_gradient": False})),
        common=SMALL | {"epochs": 6, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )


def _swav() -> Claim:
    return Claim(
        method="swav",
        says="The equal partition of the samples is what prevents collapse.",
        data=FASHION,
        arms=(Arm("swav", "swav"), Arm("no equal partition", "swav", {"iters": 0})),
        common=SMALL | {"epochs": 8, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )


def _seer() -> Claim:
    return Claim(
        method="seer",
        says="On an unbalanced stream, clusters sized by a power law beat clusters of equal size.",
        data="fashion-mnist?n=24000&imbalance=0.01",
        judged_on=FASHION,
        arms=(
            Arm("power law", "seer", {"power_law": 0.5}),
            Arm("equal partition", "seer"),
            Arm("swav", "swav"),
        ),
        common=SMALL | {"epochs": 5, "batch_size": 128},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        full={"data": "fashion-mnist?imbalance=0.01", "epochs": 30},
    )


def _dino() -> Claim:
    return Claim(
        method="dino",
        says="Without centring the teacher's output collapses.",
        data=FASHION,
        arms=(Arm("dino", "dino"), Arm("no centring", "dino", {"centering": False})),
        common=SMALL | {"epochs": 8, "batch_size": 128},
        score=("diagnostics", "effective_rank"),
        also=(("knn", "accuracy"), ("linear", "accuracy")),
        full=LONGER,
    )


def _ressl() -> Claim:
    return Claim(
        method="ressl",
        says="Relations to other images, as a teacher sees them in weak views, teach more than telling images apart.",
        data=FASHION,
        arms=(
            Arm("ressl", "ressl"),
            Arm("moco-v2", "moco-v2"),
            Arm("strong views for the teacher", "ressl", {"teacher_view": "strong"}),
        ),
        common=SMALL | {"epochs": 8, "batch_size": 128},
        score=("knn", "accuracy"),
        also=(("linear", "accuracy"),),
        full=LONGER,
    )


CLAIMS: dict[str, Callable[[], Claim]] = {
    "barlow-twins": _barlow,
    "mixed-barlow-twins": _mixed_barlow,
    "vicreg": _vicreg,
    "byol": _byol,
    "simsiam": _simsiam,
    "swav": _swav,
    "seer": _seer,
    "dino": _dino,
    "ressl": _ressl,
}
