import torch

G = torch.Generator().manual_seed(7)
Q1, Q2, K1, K2 = (torch.randn(4, 6, generator=G) for _ in range(4))
RESTORED, CLEAN = (torch.rand(8, 3, 4, 4, generator=G) for _ in range(2))
MASK = (torch.rand(8, 3, 4, 4, generator=G) > 0.5).float()
CALLS = {
    "sit_contrastive": ((Q1, Q2, K1, K2), {}),
    "sit_reconstruction": ((RESTORED, CLEAN, MASK), {}),
    "sit": ((Q1, Q2, K1, K2, RESTORED, CLEAN, MASK), {}),
    "uncertainty_weighted": (([torch.tensor(0.5), torch.tensor(1.5)], torch.zeros(2)), {}),
}
