import torch

G = torch.Generator().manual_seed(8)
PARTS = tuple(torch.rand(2, 8, 6, generator=G) for _ in range(4))
MASK = torch.tensor([[True, False] * 4, [False, True] * 4])
CALLS = {
    "gradient_map": ((torch.rand(2, 3, 6, 7, generator=G),), {}),
    "uni4eye": ((*PARTS, MASK), {}),
}
