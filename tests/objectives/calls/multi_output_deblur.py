"""Calls of the losses over several heads."""

import torch

G = torch.Generator().manual_seed(10)
HEADS, SHARP = torch.rand(2, 4, 3, 6, 7, generator=G), torch.rand(2, 3, 6, 7, generator=G)
CALLS = {
    "multi_output_deblur": (([HEADS, HEADS], SHARP), {}),
    "multi_head_psnr": ((HEADS, SHARP), {"to_y": True}),
    "multi_head_mse": ((HEADS, SHARP), {}),
    "multi_head_l1": ((HEADS, SHARP), {"select": "pixel"}),
    "multi_head": ((HEADS, SHARP), {}),
    "head_distances": ((HEADS, SHARP), {}),
    "charbonnier": ((SHARP, SHARP + 0.1), {}),
    "charbonnier_edge": ((SHARP, SHARP + 0.1), {}),
    "laplacian": ((SHARP,), {}),
    "rgb_to_y": ((SHARP,), {}),
    "best_head": ((HEADS[:, :, 0, 0, 0],), {}),
    "win_rates": ((HEADS[:, :, 0, 0, 0],), {}),
}
