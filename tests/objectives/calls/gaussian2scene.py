"""Calls of Gaussian2Scene's losses."""

import torch

G = torch.Generator().manual_seed(41)
A, B = torch.rand(2, 5, 3, generator=G), torch.rand(2, 7, 3, generator=G)
PATCHES, RESTORED = (torch.rand(2, 4, 6, 3, generator=G) for _ in range(2))
PIXELS, TOLD = (torch.rand(2, 4, 12, generator=G) for _ in range(2))
FOUND = torch.tensor([[True, False, True, True]] * 2)
IMAGES = tuple(torch.rand(2, 3, 12, 13, generator=G) for _ in range(2))
DEPTHS = tuple(torch.rand(2, 4, 5, generator=G) for _ in range(3))
CALLS = {
    "chamfer": ((A, B), {}),
    "hidden_points": ((RESTORED, PATCHES), {}),
    "cross_modal_patches": ((TOLD, PIXELS, FOUND), {}),
    "splatted_picture": (IMAGES, {}),
    "splatted_depth": (DEPTHS, {}),
    "gaussian2scene": (
        ((RESTORED, PATCHES), (TOLD, PIXELS, FOUND), (TOLD, PIXELS, FOUND), (A, B), IMAGES, DEPTHS),
        {"structure": 0.3},
    ),
}
