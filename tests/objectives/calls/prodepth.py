import torch

G = torch.Generator().manual_seed(4)
IMAGES = torch.rand(2, 3, 6, 7, generator=G)
FRAMES, OTHERS = (torch.rand(2, 2, 3, 6, 7, generator=G) for _ in range(2))
X, Y, WEIGHT = (torch.rand(2, 1, 6, 7, generator=G) + 0.1 for _ in range(3))
HIT = torch.tensor([0.0, 1.0])
CALLS = {
    "confidence_mask": ((WEIGHT, HIT), {}),
    "cost_volume_loss": ((X, HIT), {}),
    "depth_consistency": ((X, Y, WEIGHT), {}),
    "heteroscedastic": ((X, Y), {}),
    "masked_mean": ((X, WEIGHT), {}),
    "prodepth": (({0: X}, {0: FRAMES}, OTHERS, IMAGES, X, Y, WEIGHT, HIT), {}),
}
