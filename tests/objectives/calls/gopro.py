import torch

G = torch.Generator().manual_seed(5)
LOGITS, LABELS = torch.randn(6, 3, generator=G), torch.tensor([0, 1, 2, 0, 1, 2])
T, U, V = (torch.randn(6, 3, 4, generator=G) for _ in range(3))
A, B = (torch.randn(6, 5, generator=G) for _ in range(2))
CALLS = {"gopro": ((LOGITS, LABELS, T, U, V, A, B), {}), "gopro_semantic": ((T, U, V), {})}
