"""The claim of video-ssl-benchmark."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import Fact

__all__ = ["claim", "fact"]

LEARNT = "motion?train=200&test=100&side=16"
"""Clips that all move at one speed, in four directions."""

STILL = f"{LEARNT}&speed=0"
"""The control: the same shapes and colours, standing still, in which there is nothing to learn of speed."""

SPEED = "motion?label=speed&train=200&test=200&side=16"
"""Clips that move slowly or four times as fast."""


def claim() -> Claim:
    """What the paper says of the pretexts, and the smallest fair comparison that could show it, on generated motion and
    on clips in which nothing moves.
    """
    return Claim(
        method="video-ssl-benchmark",
        says="A pretext that asks for speed knows more of it than those that ask for order, rotation or time, and than "
        "an untrained network; a student of two pretexts keeps what its teachers know.",
        data=LEARNT,
        arms=(
            Arm("rspnet", "rspnet", {"steps": 200}),
            Arm("prp", "prp", {"steps": 200}),
            Arm("tdl", "tdl", {"steps": 200}),
            Arm("vcop", "vcop", {"steps": 200}),
            Arm("video-rotnet", "video-rotnet", {"steps": 200}),
            Arm("student of rspnet and rotnet", "video-distillation", {"steps": 200}),
            Arm("untrained", "video-rotnet", {"steps": 1}, kind="random"),
        ),
        conditions={"": {}, "learnt from still clips": {"data": STILL}},
        common={"batch_size": 8, "image_size": 16, "augment": "none"},
        score=("linear", "accuracy"),
        also=(("knn", "accuracy"),),
        judged_on=SPEED,
        full={"data": LEARNT.replace("train=200", "train=2000"), "batch_size": 32},
    )


def fact() -> Fact:
    """What holds exactly about its objectives, whatever the experiment shows."""
    g = torch.Generator().manual_seed(0)
    q, k = (torch.nn.functional.normalize(torch.randn(8, 16, generator=g, dtype=torch.float64), dim=1) for _ in "qk")
    still = objectives.relative_speed(q, k, k).item()
    alike = objectives.tdl(q, k, k, torch.zeros(0, 16, dtype=torch.float64)).item()
    order = objectives.vcop(torch.zeros(4, 6), torch.tensor([0, 1, 2, 3])).item()
    return Fact(
        "In a video in which nothing moves the tasks about time can't be solved: the clip at another speed is the same "
        "clip (RSPNet's ranking stays at its margin 1), so is the clip at another time (TDL stays at log 2), and the "
        "order of equal clips is a guess (VCOP stays at log 6).",
        {"ranking": still, "exp(TDL)": 2.718281828459045**alike, "exp(VCOP)": 2.718281828459045**order},
        abs(still - 1) < 1e-9 and abs(alike - 0.6931471805599453) < 1e-9 and abs(order - 1.791759469228055) < 1e-6,
    )
