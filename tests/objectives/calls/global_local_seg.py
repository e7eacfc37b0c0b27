import torch

G = torch.Generator().manual_seed(20)
MAPS = torch.randn(4, 2, 9, 9, generator=G)
WEIGHT = torch.randn(3, 18, generator=G)
CLASSES = torch.randint(0, 3, (2, 4, 4), generator=G)
CALLS = {
    "one_directional": ((torch.randn(5, generator=G), torch.randn(5, 3, generator=G)), {}),
    "global_random": ((torch.randn(6, 4, generator=G),), {}),
    "global_domain_minus": ((torch.randn(12, 4, generator=G),), {"parts": 2}),
    "global_domain": ((torch.randn(12, 4, generator=G),), {"parts": 2}),
    "region_features": ((MAPS, torch.tensor([[0, 1], [5, 6]])), {"weight": WEIGHT}),
    "local_random": ((MAPS,), {"weight": WEIGHT}),
    "local_domain": ((MAPS,), {"parts": 1, "weight": WEIGHT}),
    "soft_dice": ((torch.randn(2, 3, 4, 4, generator=G), CLASSES), {}),
}
WITHOUT_TENSORS = {"region_corners", "region_negatives"}
