"""The claim of multi-output-deblur."""

from __future__ import annotations

import torch

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import Fact
from selftaught.objectives import multi_head_mse

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    All arms learn from the same pictures for as many steps; the head is chosen on the tenth that is held out from all.
    ``best_overall`` is an oracle: it knows the sharp picture.
    """
    return Claim(
        method="multi-output-deblur",
        says="With four heads and their means, the best head of each picture and, less, the best single head deblur "
        "better than the same network with one output.",
        data="photos?test=2",
        arms=(
            Arm("K=4", "multi-output-deblur", {"heads": 4}),
            Arm("K=1", "multi-output-deblur", {"heads": 1}),
        ),
        common={"steps": 80, "batch_size": 8, "patch": 48},
        score=("heads", "best_overall"),
        also=(("heads", "best_single"), ("heads", "worst"), ("restoration", "psnr"), ("restoration", "ssim")),
        full={"steps": 3000},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    rng = torch.Generator().manual_seed(0)
    output = torch.rand(6, 4, 3, 8, 8, generator=rng).requires_grad_()
    target = torch.rand(6, 3, 8, 8, generator=rng)
    loss = multi_head_mse(output, target)
    (gradient,) = torch.autograd.grad(loss, output)
    each = (output.detach() - target[:, None]).square().mean((2, 3, 4))
    taught = gradient.abs().sum((2, 3, 4)) > 0
    others = float((taught & (each > each.amin(1, keepdim=True))).sum())
    above = float(loss.detach() - each.mean(0).min())
    return Fact(
        "Only the best head of a picture learns from it, and the loss is never above that of the best single head.",
        {"other heads that learn": others, "loss minus the best single head's": above},
        others == 0 and int(taught.sum()) == len(output) and above <= 0,
    )
