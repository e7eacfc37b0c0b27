"""The claim of rrformer."""

from __future__ import annotations

import torch
from torch.nn.functional import conv2d

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import Fact, apart
from selftaught.networks import FoldedEmbedding, RRFormer
from selftaught.networks.hypercolumn import hypercolumn

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    All arms have the same ends, hypercolumn, losses and steps; between the ends are Swin layers, ERRNet's residual
    blocks, or nothing, as in the authors' code; IBCLN is a network of its own. They learn from tiles of photographs and
    are judged by one of each.
    """
    ends = {"levels": 1, "gan_epoch": 2}
    return Claim(
        method="rrformer",
        says="The transformer body removes reflections a little better than ERRNet's residual blocks (0.3 dB in the "
        "paper), and than the released code, in which it has no effect.",
        data="photos?train=10&test=1",
        arms=(
            Arm("transformer", "rrformer", ends),
            Arm("ERRNet body", "errnet", ends | {"flip": False}),
            Arm("released identity", "rrformer", ends | {"sfem": "identity"}),
            Arm("IBCLN, light", "ibcln"),
        ),
        common={
            "steps": 100,
            "batch_size": 4,
            "patch": 48,
            "recipe": "ceilnet",
            "schedule": "constant",
            "vgg_weights": "hed",
        },
        score=("restoration", "psnr"),
        also=(("restoration", "ssim"), ("restoration", "sharpness"), ("run", "seconds")),
        full={"data": "photos", "steps": 4000, "patch": 96},
    )


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = RRFormer(levels=(), width=8, dim=8, blocks=2, depth=2, heads=2, window=4, final="none").eval()
    net(torch.rand(2, 3, 32, 32, generator=rng)).square().mean().backward()
    still = sum(p.grad is None or not p.grad.any() for p in net.body.parameters())
    image = torch.rand(1, 3, 24, 20, dtype=torch.float64, generator=rng)
    levels = [torch.rand(1, 4, 24 >> k, 20 >> k, dtype=torch.float64, generator=rng) for k in range(3)]
    embedding = FoldedEmbedding(3, (4, 4, 4), 5).double()
    folded = apart(embedding(image, levels), conv2d(hypercolumn(image, levels), embedding.weight, embedding.bias))
    return Fact(
        "All of the transformer learns, and the hypercolumn read level by level gives what its 1x1 convolution gives.",
        {"parameters without a gradient": float(still), "deviation of the folded embedding": folded},
        still == 0 and folded < 1e-10,
    )
