"""Calls of DADeblur's objectives."""

import torch

G = torch.Generator().manual_seed(33)
FRAMES = torch.rand(2, 3, 7, 6, 5, generator=G)
AHEAD, BACK = (torch.randn(2, 2, 6, 5, generator=G) for _ in range(2))
CHAIN = torch.randn(2, 4, 2, 6, 5, generator=G)
SHARES = torch.rand(2, 1, 6, 5, generator=G)
MAGNITUDES = 5 * torch.rand(7, 6, 5, generator=G)
X, Y = (torch.rand(2, 3, 6, 5, generator=G) - 0.5 for _ in range(2))
CALLS = {
    "averaged_exposure": ((FRAMES, 3, 2), {"gamma": 2.2}),
    "blur_condition": ((AHEAD, MAGNITUDES[:2]), {}),
    "blur_magnitude": ((SHARES.flip(0), SHARES), {"scale_invariant": 0.5}),
    "blur_noise": ((X, Y), {}),
    "blur_orientation": ((AHEAD, BACK), {}),
    "dadeblur": ((X, Y), {}),
    "domain_magnitude": ((MAGNITUDES,), {}),
    "exposure_flow": ((CHAIN, -CHAIN), {}),
    "magnitude_share": ((AHEAD,), {}),
}
