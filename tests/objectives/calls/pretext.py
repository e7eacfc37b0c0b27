import torch

G = torch.Generator().manual_seed(5)
CALLS = {
    "rotation": ((torch.randn(8, 4, generator=G), torch.arange(8) % 4), {}),
    "jigsaw": ((torch.randn(3, 9, generator=G), torch.tensor([4, 0, 8])), {}),
    "relative_position": ((torch.randn(3, 8, generator=G), torch.tensor([7, 1, 0])), {}),
}
