import torch

G = torch.Generator().manual_seed(5)
PREDICTION, PATCHES = (torch.rand(2, 8, 6, generator=G) for _ in range(2))
IMAGES = tuple(torch.rand(2, 3, 4, 4, generator=G) for _ in range(2))
MASK = torch.tensor([[True, False] * 4, [False, True] * 4])
CALLS = {
    "mae": ((PREDICTION, PATCHES, MASK), {}),
    "mae_target": ((PATCHES,), {}),
    "mae_pixels": ((*IMAGES, torch.ones(2, 4, 4)), {}),
}
