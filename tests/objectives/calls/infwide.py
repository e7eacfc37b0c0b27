"""Calls of INFWIDE's losses."""

import torch

G = torch.Generator().manual_seed(30)
X, B, D, OUT = (torch.rand(2, 3, 24, 26, generator=G) for _ in range(4))
HALF, KERNEL = torch.rand(2, 3, 12, 13, generator=G), torch.rand(2, 1, 5, 5, generator=G)
CALLS = {
    "infwide": (([HALF, OUT], D, X, B, KERNEL), {}),
    "infwide_main": (([HALF, OUT], X), {}),
    "infwide_denoise": ((D, B), {}),
    "infwide_reblur": ((OUT, KERNEL, B), {}),
    "infwide_tv": ((OUT,), {}),
    "reblurred": ((OUT, KERNEL), {}),
}
