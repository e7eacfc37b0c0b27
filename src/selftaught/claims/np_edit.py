"""The claim of NP-Edit."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim, Start
from selftaught.claims._facts import EXACT, Fact
from selftaught.claims._np_edit_vectors import toy

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it: the image toy of 16 pixels a side."""
    data = "shapes?side=16"
    prepared = {"steps": 1, "teacher_steps": 500, "judge_steps": 350, "warmup_steps": 100, "batch_size": 32}
    begun = {"teacher_steps": 0, "judge_steps": 0, "warmup_steps": 0}
    return Claim(
        method="np-edit",
        says="A judge's answers and distribution matching together teach an editor what neither does alone.",
        data=data,
        start=Start("np-edit", data, prepared),
        arms=(
            Arm("judge + matching", "np-edit"),
            Arm("judge alone", "np-edit", {"use_dmd": False}),
            Arm("matching alone", "np-edit", {"use_vlm": False}),
        ),
        common={"steps": 160, "batch_size": 32} | begun,
        score=("editing", "right"),
        also=(
            ("editing", "overall"),
            ("editing", "success"),
            ("editing", "outside"),
            ("editing", "kept"),
            ("editing", "own_judge"),
            ("run", "seconds"),
        ),
        judging={"limit": 20},
        full={"steps": 1000, "batch_size": 32},
    )


def fact() -> Fact:
    """What holds exactly about it, and its vector toy."""
    rng = torch.Generator().manual_seed(0)
    wanted, noise = (torch.randn(64, 6, generator=rng, dtype=torch.float64) for _ in range(2))
    t = torch.tensor(objectives.T_SET, dtype=torch.float64)[torch.randint(0, 3, (64,), generator=rng)]
    clean, _ = objectives.unroll_flow(lambda x, at: (x - wanted) / at[:, None], noise, t)
    off = float((clean - wanted).abs().max())
    x = wanted.clone().requires_grad_()
    loss = objectives.match_distributions(x, noise, wanted, noise, t, normalise=False)
    (gradient,) = torch.autograd.grad(loss, x)
    off = max(off, float((gradient - t[:, None] * (wanted - noise) / x.numel()).abs().max()))
    found = toy()
    numbers = {"deviation": off}
    for name in ("both", "judge", "matching"):
        numbers |= {f"vectors, {name}: success": found[name][0], f"vectors, {name}: content change": found[name][1]}
    start, both, alone = (found[name] for name in ("start", "both", "matching"))
    edit = start[0] == 0 and min(both[0], alone[0]) > 0.9  # copying edits nothing
    return Fact(
        "An oracle is unrolled to its picture and matching has the paper's gradient; of vectors, teacher and judge in "
        "closed form, both losses edit over 90 % right and change little content, matching alone changes more of it.",
        numbers,
        off < EXACT and edit and both[1] < 0.2 and alone[1] > both[1],
    )
